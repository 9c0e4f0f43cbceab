"""The distances that a student is trained to make small: of logits, and of hidden states."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The softening of Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network".
TEMPERATURE = 2.0

# A layer whose states are all zero at first divides by this.
SMALLEST = 1e-12

Divergence = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Logits of the student and of the teacher, both [rows, numbers] -> their mean distance, one number."""


def softened(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the mean KL divergence of softmax probabilities at TEMPERATURE, times its square as in the paper."""
    from torch.nn import functional

    one, other = (functional.log_softmax(logits / TEMPERATURE, dim=-1) for logits in (student, teacher))
    return functional.kl_div(one, other, reduction="batchmean", log_target=True) * TEMPERATURE**2


def softened_sigmoid(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the same of sigmoids: the sum over the numbers, each of which has two outcomes."""
    import torch

    def pairs(logits: torch.Tensor) -> torch.Tensor:
        return torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2)

    return softened(pairs(student), pairs(teacher)) * student.shape[-1]


def squared(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the mean over the rows of the squared distance."""
    return (student - teacher).square().sum(dim=-1).mean()


# What makes probabilities of a head's logits (`Head.probabilities`) -> the divergence for it.
DIVERGENCES: dict[str | None, Divergence] = {"softmax": softened, "sigmoid": softened_sigmoid, None: squared}


def relative_distance(
    student: Sequence["torch.Tensor"], teacher: Sequence["torch.Tensor"], real: "torch.Tensor"
) -> "torch.Tensor":
    """Return the squared distance of hidden states as a share of the teacher's squares: the mean over the layers.

    As a share it weighs the same in a model whose states are large. States are [batch, sequence, width] each; `real` is
    bool [batch, sequence], without padded positions.
    """
    import torch

    parts = []
    for one, other in zip(student, teacher, strict=True):
        difference, reference = (one - other)[real], other[real]
        parts.append(difference.square().sum() / reference.square().sum().clamp_min(SMALLEST))
    return torch.stack(parts).mean()
