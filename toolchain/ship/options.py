"""What may be chosen of a model repository: the options of `ship triton`, in one table."""

import dataclasses
from dataclasses import dataclass

from toolchain.bundle.names import check_name
from toolchain.recipe.options import check, option

INT32, INT64, UINT32, UINT64 = 2**31 - 1, 2**63 - 1, 2**32 - 1, 2**64 - 1
"""The most that fields of a configuration hold (model_config.proto)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One repository's choices.

    Raises:
        UsageError: on construction, naming the option and the value.
    """

    backend: str | None = option(
        None,
        "what runs the model (default trt where the bundle has plans, else python)",
        choices=("trt", "ort", "python"),
    )
    name: str | None = option(None, "the model's name on the wire (default that of the checkpoint)", metavar="NAME")
    version: int = option(1, "its version; versions that are there already are kept", metavar="N", least=1, most=INT64)
    max_batch: int | None = option(
        None, "most rows a batch (default the plan's, else 64)", metavar="N", least=1, most=INT32
    )
    instances: int = option(
        1, "copies of the model, on each GPU where there are several", metavar="N", least=1, most=INT32
    )
    queue: int = option(256, "requests that may wait; more are refused with 503", metavar="N", least=1, most=UINT32)
    timeout_ms: int = option(
        5000, "longest wait before a request is refused", metavar="MS", least=1, most=UINT64 // 1000
    )
    delay_us: int = option(0, "wait for more rows while the engine is idle", metavar="US", least=0, most=UINT64)
    max_characters: int = option(16_384, "longest text that is taken", metavar="N", least=1)
    cuda_graphs: bool = option(False, "record CUDA graphs for batches of powers of two (trt)")
    response_cache: bool = option(False, "answer repeated texts from the server's cache")
    tensorrt: str | None = option(None, "whose plans to take, where the bundle has several", metavar="VERSION")
    device: str | None = option(None, "for which graph is taken (ort; default cuda)", choices=("cpu", "cuda"))
    file: str | None = option(None, "which graph of the bundle to take (ort, python)", metavar="NAME")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options, in the order of the table."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if self.name is not None:
            check_name(self.name)
