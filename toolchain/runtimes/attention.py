"""Attention of a PyTorch encoder: transformers' implementations on padded rows, or kernels on rows without padding.

`eager` and `sdpa` are implemented by transformers. The other kinds remove the padding before the first layer, so that
all rows are concatenated and only real tokens are computed, and restore it after the last layer. A token must attend
only to tokens of its own row; each kernel ensures this differently:

- `flash`: scaled_dot_product_attention with PyTorch's flash kernel only. The kernel takes no mask, so it is called once
  for each length, with all rows of that length as a batch;
- `packed`: the variable-length flash kernel (torch.nn.attention.varlen). On a CPU, PyTorch's default kernel is called
  once for each length instead;
- `flex`: FlexAttention with a block mask that restricts a token to its row. It is compiled on a GPU.
"""

import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.facts import outputs
from toolchain.errors import MachineError, UsageError, first_line
from toolchain.recipe.tables import ATTENTIONS

if TYPE_CHECKING:
    import torch

# The implementations in transformers, which run on padded rows.
PADDED = ("eager", "sdpa")

# Arguments: query, key and value, each [heads, tokens, head size], the layout of the rows, and the scale. Returns the
# result of attention, of the same shape.
Kernel = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", "Layout", float], "torch.Tensor"]


@dataclass(frozen=True)
class Layout:
    """The layout of rows that are concatenated without padding: the length of each row, int64 [rows], on the device."""

    lengths: "torch.Tensor"

    @cached_property
    def rows(self) -> "torch.Tensor":
        """The index of the row that each token belongs to, int64 [tokens]."""
        import torch

        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)

    @cached_property
    def by_length(self) -> "list[tuple[int, torch.Tensor]]":
        """Each length that occurs, with the indices of all tokens of rows of that length, int64 [rows x length]."""
        import torch

        of_token = self.lengths[self.rows]
        return [(length, (of_token == length).nonzero()[:, 0]) for length in torch.unique(self.lengths).tolist()]

    @cached_property
    def mask(self) -> Any:
        """FlexAttention's block mask, which restricts each token to its row."""
        from torch.nn.attention.flex_attention import create_block_mask

        rows = self.rows

        def same_row(batch: Any, head: Any, here: Any, there: Any) -> Any:
            return rows[here] == rows[there]

        return create_block_mask(same_row, None, None, len(rows), len(rows), device=rows.device)


# The kernel and the layout of the rows for the encoder that is running in this context.
_RUNNING: ContextVar[tuple[Kernel, Layout]] = ContextVar("running")

# The name under which transformers knows these kernels. transformers treats some names specially, such as names that
# contain "flash".
INTERFACE = "toolchain-unpadded"


# Number of tokens of the row on which logits are compared, and the largest accepted difference. It is a fraction of the
# largest logit, or of 1 if all logits are smaller. Sums in another order may differ this much in bfloat16.
TRIED_TOKENS, TOLERANCE = 8, 0.05


def attend_without_padding(module: "torch.nn.Module", name: str) -> None:
    """Change a sequence classifier of transformers in place, so that it runs without padding on the kernel `name`.

    Raises:
        UsageError: KERNELS lacks the name, the model has no table of position embeddings, or its logits change. They
            change if the model is a decoder or has its own implementation of attention.
        MachineError: this PyTorch lacks the kernel.
    """
    if name not in KERNELS:
        raise UsageError(f"--attention {name}: cannot be used with --backend torch. Choose {', '.join(ATTENTIONS)}.")
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, _attend)
    model: Any = module
    expected = _tried(model)
    model.set_attn_implementation(INTERFACE)
    _unpad(model, KERNELS[name](next(module.parameters()).device.type))
    if (_tried(model) - expected).abs().max() > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UsageError(
            f"--attention {name}: {model.config.model_type} gives other logits with it. Choose eager or sdpa."
        )


def _tried(model: Any) -> "torch.Tensor":
    """Return the logits of two built-in test rows, one of which is padded, float32 [2, classes]."""
    import torch

    place, pad_id = next(model.parameters()).device, model.config.pad_token_id or 0
    mask = (torch.arange(TRIED_TOKENS) < torch.tensor([[TRIED_TOKENS], [TRIED_TOKENS // 2]])).to(torch.int32)
    ids = torch.arange(pad_id + 1, pad_id + 1 + TRIED_TOKENS) * mask + pad_id * (1 - mask)
    with torch.inference_mode():
        logits: torch.Tensor = outputs(model, {"input_ids": ids.to(place), "attention_mask": mask.to(place)})
        return logits.float()


def _attend(
    layer: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    """Compute attention with the kernel that _RUNNING holds in this forward pass. transformers calls this function.

    Query, key and value are [1, heads, tokens, head size]; the result is [1, tokens, heads, head size] and None.
    """
    kernel, layout = _RUNNING.get()
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return kernel(query[0], key[0], value[0], layout, scale).transpose(0, 1)[None], None


def _unpad(module: Any, kernel: Kernel) -> None:
    """Replace the encoder's `forward` by one that removes the padding of its input, and pads its output with zeros."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = module.base_model
    plain, pooler, positions_of = base.forward, getattr(base, "pooler", None), _positions(base)

    def forward(input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
        real = attention_mask.bool()
        real[:, 0] |= ~real.any(1)  # an empty row gets one token, so that its (meaningless) logits are finite
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids[real][None]}
        running = _RUNNING.set((kernel, Layout(real.sum(1))))
        try:
            found = plain(input_ids=input_ids[real][None], position_ids=positions_of(input_ids)[real][None], **types)
        finally:
            _RUNNING.reset(running)
        hidden = torch.zeros((*input_ids.shape, found[0].shape[-1]), dtype=found[0].dtype, device=input_ids.device)
        hidden[real] = found[0][0]
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooler(hidden) if pooler else None)

    base.forward = forward


def _positions(base: Any) -> Callable[[Any], Any]:
    """Return a function that maps the token ids of padded rows to their position ids, both [rows, length].

    RoBERTa and similar models count only real tokens, and their first position id is the padding id plus 1.

    Raises:
        UsageError: the model has no table of position embeddings.
    """
    import torch

    table = getattr(getattr(base, "embeddings", None), "position_embeddings", None)
    if table is None:
        raise UsageError("--attention: this model lacks a table of position embeddings. Choose eager or sdpa.")
    padding = table.padding_idx

    def positions(ids: Any) -> Any:
        if padding is None:
            return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        real = ids.ne(padding)
        return real.cumsum(1) * real + padding

    return positions


def _by_length(query: Any, key: Any, value: Any, layout: Layout, scale: float) -> Any:
    """Compute attention without a mask, one call for all rows of a length. The arguments are those of `Kernel`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    attend: Any = scaled_dot_product_attention
    found = torch.empty_like(query)
    for length, here in layout.by_length:
        ours = (tensor[:, here].unflatten(1, (-1, length)).transpose(0, 1) for tensor in (query, key, value))
        found[:, here] = attend(*ours, scale=scale).transpose(0, 1).flatten(1, 2)
    return found


def _flash(device: str) -> Kernel:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(*arguments: Any) -> Any:
        try:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return _by_length(*arguments)
        except RuntimeError as error:
            raise MachineError(
                f"--attention flash: PyTorch's flash kernel cannot run here ({first_line(error).rstrip('.')}). "
                "Choose --precision fp16 or bf16 on a GPU of compute capability 8.0 or later, or --attention sdpa."
            ) from error

    return attend


def _packed(device: str) -> Kernel:
    if device == "cpu":
        return _by_length
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise MachineError(
            "--attention packed: this PyTorch lacks varlen_attn. Install torch 2.10 or later."
        ) from error

    def attend(query: Any, key: Any, value: Any, layout: Layout, scale: float) -> Any:
        import torch

        ends = torch.nn.functional.pad(layout.lengths.cumsum(0), (1, 0)).to(torch.int32)
        longest = int(layout.lengths.max())
        query, key, value = (tensor.transpose(0, 1).contiguous() for tensor in (query, key, value))
        found: Any = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale)
        return found.transpose(0, 1)

    return attend


def _flex(device: str) -> Kernel:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    run: Any = torch.compile(flex_attention, dynamic=True) if device != "cpu" else flex_attention

    def attend(query: Any, key: Any, value: Any, layout: Layout, scale: float) -> Any:
        with warnings.catch_warnings():
            # On a CPU, FlexAttention is not compiled: it is correct but slow.
            warnings.filterwarnings("ignore", "flex_attention called without")
            return run(query[None], key[None], value[None], block_mask=layout.mask, scale=scale)[0]

    return attend


# Name -> function that returns the kernel for a type of device (`cpu`, `cuda`).
KERNELS: dict[str, Callable[[str], Kernel]] = {"flash": _flash, "flex": _flex, "packed": _packed}
