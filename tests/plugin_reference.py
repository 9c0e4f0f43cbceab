"""What TensorRT's BERT plugins compute, in numpy, and as operators of onnx.reference.

Written from the plugins' documentation, not from our own code: a query, a key and a value for each
head side by side, the scale 1/sqrt(head size) inside, one row never seeing another, epsilon as a
property of the number type.
"""

import itertools

import numpy as np
from onnx.reference.op_run import OpRun

DOMAIN = "trt.plugins"
EPSILON = {0: float(np.finfo(np.float32).eps), 1: float(np.finfo(np.float16).eps)}
"""DataType integer -> what the skip-LayerNorm plugin adds to the variance: 1.19e-7 and 9.77e-4."""


def attention(qkv, heads, head_size, length=None):
    """One row: [tokens, heads * 3 * head_size] -> [tokens, heads * head_size]; keys from `length` on are padding."""
    query, key, value = qkv.astype(np.float32).reshape(len(qkv), heads, 3, head_size).transpose(2, 1, 0, 3)
    scores = query @ key[:, :length].transpose(0, 2, 1) / np.sqrt(np.float32(head_size))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value[:, :length]).transpose(1, 0, 2).reshape(len(qkv), heads * head_size)


def qkv_varlen(qkv, cu_seqlens, heads, head_size):
    """[T, 3E] and [batch + 1] -> [T, E]: rows one after another, row i from cu_seqlens[i] to cu_seqlens[i + 1]."""
    context = np.zeros((len(qkv), heads * head_size), np.float32)
    for start, end in itertools.pairwise(cu_seqlens):
        context[start:end] = attention(qkv[start:end], heads, head_size)
    return context.astype(qkv.dtype)


def qkv_fixed(qkv, lengths, heads, head_size):
    """[S, B, 3E] and [B] -> [S, B, E]: padding attends to its row's tokens, and nothing attends to padding."""
    rows = [attention(qkv[:, row], heads, head_size, int(end)) for row, end in enumerate(np.reshape(lengths, -1))]
    return np.stack(rows, axis=1).astype(qkv.dtype)


def skip_layer_norm(x, skip, gamma, beta, epsilon):
    """LayerNorm of x + skip over the axis as long as gamma: the last, or the one before dimensions of 1."""
    total = x.astype(np.float32) + skip.astype(np.float32)
    flat = total.reshape(-1, np.size(gamma))
    centred = flat - flat.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    return (normed * np.reshape(gamma, -1) + np.reshape(beta, -1)).reshape(total.shape).astype(x.dtype)


def as_type(array, type_id):
    """What a plugin of this type reads: in a network whose types TensorRT chooses, float32 may come as float16."""
    assert array.dtype == np.float32 or (array.dtype == np.float16 and type_id == 1)
    return array.astype(np.float16) if type_id == 1 else array


class CustomQKVToContextPluginDynamic(OpRun):
    """The variable-length kinds, v2 and v5. Type 2 (INT8) computes without rounding here."""

    op_domain = DOMAIN

    def _run(
        self,
        qkv,
        mask,
        cu_seqlens,
        max_seqlen,
        plugin_version=None,
        plugin_namespace=None,
        type_id=None,
        hidden_size=None,
        num_heads=None,
        has_mask=None,
        var_seqlen=None,
        dq_probs=None,
        use_int8_scale_max=None,
    ):
        assert plugin_version in ("2", "5")
        assert plugin_namespace == ""
        assert has_mask
        assert var_seqlen
        assert (dq_probs is not None) == (type_id == 2)
        assert qkv.shape == (cu_seqlens[-1], 3 * hidden_size, 1, 1)
        assert mask.dtype == cu_seqlens.dtype == max_seqlen.dtype == np.int32
        assert len(max_seqlen) == np.diff(cu_seqlens).max()  # its length counts, its values do not
        read = as_type(qkv, type_id)[:, :, 0, 0]
        context = qkv_varlen(read, cu_seqlens, num_heads, hidden_size // num_heads)
        return (context[:, :, None, None].astype(qkv.dtype),)


class CustomSkipLayerNormPluginDynamic(OpRun):
    """The variable-length kinds, v2 and v6."""

    op_domain = DOMAIN

    def _run(self, x, skip, plugin_version=None, plugin_namespace=None, type_id=None, ld=None, beta=None, gamma=None):
        assert plugin_version in ("2", "6")
        assert plugin_namespace == ""
        assert x.shape == skip.shape == (len(x), ld, 1, 1)
        made = skip_layer_norm(as_type(x, type_id), as_type(skip, type_id), gamma, beta, EPSILON[type_id])
        return (made.astype(x.dtype),)


OPS = [CustomQKVToContextPluginDynamic, CustomSkipLayerNormPluginDynamic]
