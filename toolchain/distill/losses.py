"""The losses of distillation: distances between the logits, and between the hidden states, of student and teacher."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The temperature that softens probabilities in Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural
# Network".
TEMPERATURE = 2.0

# Replaces the norm of states that are all zero, so that nothing is divided by zero.
SMALLEST = 1e-12

Divergence = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Takes the logits of the student and of the teacher, both [rows, outputs]; returns their mean distance, a scalar."""


def softened(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the KL divergence between softmax probabilities at TEMPERATURE, times TEMPERATURE ** 2 as in the paper.

    It is the mean over the rows.
    """
    from torch.nn import functional

    one, other = (functional.log_softmax(logits / TEMPERATURE, dim=-1) for logits in (student, teacher))
    return functional.kl_div(one, other, reduction="batchmean", log_target=True) * TEMPERATURE**2


def softened_sigmoid(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the divergence of `softened` for sigmoid probabilities: each output is a choice between two outcomes.

    It is the sum over the outputs of a row, and the mean over the rows.
    """
    import torch

    def pairs(logits: torch.Tensor) -> torch.Tensor:
        return torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2)

    return softened(pairs(student), pairs(teacher)) * student.shape[-1]


def squared(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Return the squared distance between the logits of student and teacher, as the mean over the rows."""
    return (student - teacher).square().sum(dim=-1).mean()


# The function that turns a head's logits into probabilities (`Head.probabilities`) -> the divergence for such logits.
DIVERGENCES: dict[str | None, Divergence] = {"softmax": softened, "sigmoid": softened_sigmoid, None: squared}


def relative_distance(
    student: Sequence["torch.Tensor"], teacher: Sequence["torch.Tensor"], real: "torch.Tensor"
) -> "torch.Tensor":
    """Return the squared distance between hidden states, relative to the teacher's squared norm: the mean over layers.

    Because it is relative, it has the same weight in a model with large states. `student` and `teacher`
    have one tensor [batch, sequence, width] per layer. `real` is bool [batch, sequence], False at padded positions.
    """
    import torch

    parts = []
    for one, other in zip(student, teacher, strict=True):
        difference, reference = (one - other)[real], other[real]
        parts.append(difference.square().sum() / reference.square().sum().clamp_min(SMALLEST))
    return torch.stack(parts).mean()
