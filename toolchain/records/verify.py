"""The cases of a verification: the output of `toolchain verify --json`."""

from typing import TypedDict


class CaseRecord(TypedDict):
    """One case: logits that must be the same, compared."""

    name: str
    """What was varied, such as `in batches of 7` or `padded to 64`, or `parity with torch-fp32 (...)`."""
    difference: float | None
    """Largest absolute difference of a logit; for parity, root mean square. Null if nothing could be compared."""
    tolerance: float | None
    """The largest difference allowed; null if nothing was compared."""
    passed: bool
    """Whether the case passed."""
    note: str
    """Why nothing was compared, or what else was found; often empty."""


class VerifyRecord(TypedDict):
    """The whole output of `toolchain verify --json`."""

    artefact: str
    """Path of the graph, plan or checkpoint."""
    precision: str
    """Precision of the artefact."""
    halves: bool
    """Whether float16 tensors were rounded to float16 on the CPU, which otherwise computes them in float32."""
    rows: str
    """The rows that were run, in words."""
    cases: list[CaseRecord]
    """Every case, in the order in which they were run."""
    passed: bool
    """Whether every case passed."""
