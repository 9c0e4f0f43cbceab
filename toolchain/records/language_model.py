"""The bundle of a language model (`build --task lm`): what generation needs to know, and weight-only quantization."""

from typing import TypedDict


class LanguageModelFacts(TypedDict):
    """What generation needs to know of a checkpoint."""

    positions: int | None
    """Positions that the model was made for; null if its config.json states none."""
    vocabulary: int
    """Number of token ids."""
    end_ids: list[int]
    """Token ids that end a text."""
    not_followed: list[str]
    """Settings of the checkpoint's generation_config.json that a graph's greedy search does not follow."""


class LanguageModelRecord(LanguageModelFacts):
    """The key `lm` of the manifest of a language model's bundle."""

    step_bytes: dict[str, int]
    """Graph -> bytes of the weights that a step reads, by count: all but the tables of which it gathers a row."""


class WeightOnlyGemm(TypedDict):
    """A GEMM with a constant weight."""

    name: str
    """Name of the weight."""
    weights: int
    """Numbers that the weight holds."""
    bits: int | None
    """Bits of each in the graph; null if it stayed in float32."""
    reason: str | None
    """Why it stayed in float32; null if it did not."""


class WeightsRecord(TypedDict):
    """Step `weights`: `model.onnx` to `model.int8.onnx` or `model.int4.onnx`."""

    bits: int
    """Bits of a quantized weight."""
    block: int
    """Weights that share a scale and a zero point."""
    share: float
    """Share of the weights in GEMMs that were quantized, 0 to 1; a build with less than 0.9 is refused."""
    products: list[WeightOnlyGemm]
    """Every GEMM with a constant weight, in graph order."""
