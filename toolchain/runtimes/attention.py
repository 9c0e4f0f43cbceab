"""Attention of a PyTorch encoder, by name: transformers' own on padded rows, or kernels on rows without padding.

`eager` and `sdpa` are transformers'. The others take the padding out before the first layer and put it back behind the
last, so that only real tokens are computed, all rows one after the other. Each kernel keeps rows apart in its own way:

- `flash`: scaled_dot_product_attention on rows of equal length, with PyTorch's flash kernel and no other (it takes no
  mask, which is why rows of equal length go together);
- `packed`: the variable-length flash kernel (torch.nn.attention.varlen), on a CPU the same as `flash`, any kernel;
- `flex`: FlexAttention with a block mask that keeps a token to its row; compiled on a GPU.
"""

import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolchain.errors import MachineError, UsageError
from toolchain.recipe import ATTENTIONS

if TYPE_CHECKING:
    import torch

PADDED = ("eager", "sdpa")

Kernel = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", "Layout", float], "torch.Tensor"]
"""Query, key and value [heads, tokens, head size], the rows, the scale -> the same shape."""


@dataclass(frozen=True)
class Layout:
    """Rows one after the other: the length of each, int64 [rows], on the device."""

    lengths: "torch.Tensor"

    @cached_property
    def rows(self) -> "torch.Tensor":
        """The row of each token, int64 [tokens]."""
        import torch

        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)

    @cached_property
    def by_length(self) -> "list[tuple[int, torch.Tensor]]":
        """Every length there is, and the tokens of all rows of that length, int64 [rows x length]."""
        import torch

        of_token = self.lengths[self.rows]
        return [(length, (of_token == length).nonzero()[:, 0]) for length in torch.unique(self.lengths).tolist()]

    @cached_property
    def mask(self) -> Any:
        """FlexAttention's block mask that keeps each token to its row."""
        from torch.nn.attention.flex_attention import create_block_mask

        rows = self.rows

        def same_row(batch: Any, head: Any, here: Any, there: Any) -> Any:
            return rows[here] == rows[there]

        return create_block_mask(same_row, None, None, len(rows), len(rows), device=rows.device)


_RUNNING: ContextVar[tuple[Kernel, Layout]] = ContextVar("running")
"""The kernel and the rows of the encoder that runs."""

INTERFACE = "toolchain-unpadded"
"""Our name among transformers' attentions; it treats some names, such as those with flash in them, in its own ways."""


def use(module: "torch.nn.Module", name: str) -> None:
    """Have a sequence classifier of transformers attend without padding, by the kernel of this name.

    Raises:
        UsageError: no such name, or a model that has no table of positions.
        MachineError: this PyTorch lacks the kernel.
    """
    if name not in KERNELS:
        raise UsageError(f"--attention {name}: not with --backend torch. Choose {', '.join(ATTENTIONS)}.")
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, _attend)
    model: Any = module
    model.set_attn_implementation(INTERFACE)
    _unpad(model, KERNELS[name](next(module.parameters()).device.type))


def _attend(
    layer: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    """Attend as transformers asks: [1, heads, tokens, head size] -> [1, tokens, heads, head size]."""
    kernel, layout = _RUNNING.get()
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return kernel(query[0], key[0], value[0], layout, scale).transpose(0, 1)[None], None


def _unpad(module: Any, kernel: Kernel) -> None:
    """Take the padding out before the encoder, and put zeros in its place behind it."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = module.base_model
    plain, pooler, positions_of = base.forward, getattr(base, "pooler", None), _positions(base)

    def forward(input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
        real = attention_mask.bool()
        real[:, 0] |= ~real.any(1)  # a row of nothing but padding still has logits, if no meaning
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
    """Return what gives the position ids of padded rows: RoBERTa's kin count real tokens, from behind the padding id.

    Raises:
        UsageError: it has no table of positions to look them up in.
    """
    import torch

    table = getattr(getattr(base, "embeddings", None), "position_embeddings", None)
    if table is None:
        raise UsageError("--attention: this model has no table of positions, as BERT has. Choose eager or sdpa.")
    padding = table.padding_idx

    def positions(ids: Any) -> Any:
        if padding is None:
            return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        real = ids.ne(padding)
        return real.cumsum(1) * real + padding

    return positions


def _by_length(query: Any, key: Any, value: Any, layout: Layout, scale: float) -> Any:
    """Attend among rows of each length at once, without a mask."""
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
                f"--attention flash: PyTorch's flash kernel does not take this ({_short(error)}). "
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
            "--attention packed: this PyTorch has no varlen_attn. Install torch 2.10 or later."
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
            warnings.filterwarnings("ignore", "flex_attention called without")  # as it is on a CPU: right, and slow
            return run(query[None], key[None], value[None], block_mask=layout.mask, scale=scale)[0]

    return attend


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


KERNELS: dict[str, Callable[[str], Kernel]] = {"flash": _flash, "flex": _flex, "packed": _packed}
"""Name -> what makes its kernel for a type of device."""
