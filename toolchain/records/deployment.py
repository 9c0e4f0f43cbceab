"""The answer of a gated build to the question whether its artefact may be deployed: `results/gate/gate.json`."""

from typing import NotRequired, TypedDict

from toolchain.records.comparison import NamedComparison, Verdict


class Candidate(TypedDict):
    """An artefact that a gate judged."""

    file: str
    """Name of the artefact in the bundle."""
    sha256: NotRequired[str | None]
    """SHA-256 of the artefact, hexadecimal. An answer whose artefacts have changed since counts no more."""
    backend: str
    """Backend that ran it."""
    device: str
    """Device that ran it."""
    halves: NotRequired[bool]
    """Whether a CPU rounded its float16 tensors, as a GPU computes them."""
    verdict: Verdict
    """Verdict of the gate."""
    bytes: int
    """Size of the artefact with its external data, in bytes."""
    comparison: NamedComparison
    """Comparison with FP32."""


class Deployment(TypedDict):
    """The artefact that a gated build recommends for this machine, or why there is none."""

    bundle: str
    """Path of the bundle."""
    file: str | None
    """The fastest artefact on this machine that passes the gate; null if none passes."""
    verdict: Verdict
    """`passes`; or `cannot tell` or `fails`, the best verdict of all artefacts, where none passes."""
    speed_up: float | None
    """How many times as fast `file` is as the FP32 graph here; null if there is no `file`, or none was measured."""
    busy: bool
    """Whether other processes slowed this machine while the speed was measured."""
    fp32_bytes: int
    """Size of the FP32 graph with its external data, in bytes."""
    candidates: list[Candidate]
    """Every artefact that was judged, in the order of the bundle."""
    next: str
    """The next command."""
    created: str
    """Time of the verdict, ISO 8601, UTC."""
