"""What `toolchain verify --json` prints: whether logits stay the same in other batches, and how far they are from FP32.

It runs the same rows in several ways, such as in larger batches or with more padding. A case compares the logits of one
of these ways with those of the rows run one by one, or (parity) with the FP32 logits.
"""

from typing import TypedDict


class CaseRecord(TypedDict):
    """One case: two sets of logits that should be the same, and their difference."""

    name: str
    """What was varied, such as `in batches of 7` or `padded to 64`; or the reference, as in `parity with torch-fp32
    (...)`."""
    difference: float | None
    """Largest absolute difference of a logit. For parity, the root mean square of the differences; for vectors, the
    mean of 1 - cosine similarity. Null if nothing could be compared."""
    tolerance: float | None
    """Largest difference that is allowed; null if nothing was compared."""
    passed: bool
    """Whether the case passed."""
    note: str
    """Why nothing was compared, or another remark; often empty."""


class VerifyRecord(TypedDict):
    """What `toolchain verify --json` prints: all cases of one artefact."""

    artefact: str
    """Path of the graph, plan or checkpoint that was verified."""
    precision: str
    """Precision of the artefact."""
    halves: bool
    """Whether the graph ran on a CPU with its float16 tensors rounded to float16. Without that, a CPU computes them in
    float32."""
    rows: str
    """Which rows were run, in words."""
    cases: list[CaseRecord]
    """The cases, in the order in which they ran."""
    passed: bool
    """Whether every case passed."""
