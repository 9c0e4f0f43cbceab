"""The decision of a gated build (`build --max-drop`) whether its artefact may be deployed: `results/gate/gate.json`."""

from typing import NotRequired, TypedDict

from toolchain.records.comparison import NamedComparison, Verdict


class Candidate(TypedDict):
    """An artefact of the bundle, with the gate's verdict on it."""

    file: str
    """File name of the artefact in the bundle."""
    sha256: NotRequired[str | None]
    """SHA-256 of the artefact, hexadecimal. If the artefact has another digest now, the decision is out of date."""
    backend: str
    """Backend that ran the artefact."""
    device: str
    """Device that ran the artefact."""
    halves: NotRequired[bool]
    """Whether the artefact ran on a CPU with its float16 tensors rounded to float16, to give the results of a GPU."""
    verdict: Verdict
    """Verdict of the gate on the artefact."""
    bytes: int
    """Size of the artefact together with its external data, in bytes."""
    comparison: NamedComparison
    """Comparison of the artefact with the FP32 graph."""


class Deployment(TypedDict):
    """The artefact that a gated build recommends for deployment, or why it recommends none."""

    bundle: str
    """Path of the bundle."""
    file: str | None
    """File name of the recommended artefact: the fastest on this machine of those that pass the gate. Artefacts for
    TensorRT come before `model.fp16.cuda.onnx`, and artefacts that only ran in float16 emulation on a CPU come last.
    Null if none passes."""
    verdict: Verdict
    """`passes` if an artefact passes the gate; else `cannot tell` if that is the verdict on at least one artefact; else
    `fails`."""
    speed_up: float | None
    """Throughput of `file` divided by that of the FP32 graph, on this machine; null without a `file`, or if the two
    could not be timed here."""
    busy: bool
    """Whether other processes slowed this machine down while `speed_up` was measured, so that it is not reliable."""
    fp32_bytes: int
    """Size of the FP32 graph together with its external data, in bytes."""
    candidates: list[Candidate]
    """Every artefact that the gate judged."""
    next: str
    """Command to run next."""
    created: str
    """Time of the decision, ISO 8601, UTC."""
