"""The options of `toolchain ship triton`, in one table."""

import dataclasses
from dataclasses import dataclass

from toolchain.bundle.names import check_name
from toolchain.recipe.options import check, option

# Largest values that the fields of a configuration hold (model_config.proto).
INT32, INT64, UINT32, UINT64 = 2**31 - 1, 2**63 - 1, 2**32 - 1, 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a bundle is written into a model repository.

    Raises:
        UsageError: on construction, if a value is invalid. The message names the option and the value.
    """

    backend: str | None = option(
        None,
        "the backend that runs the model (default: trt if the bundle has plans, else python)",
        choices=("trt", "ort", "python"),
    )
    name: str | None = option(None, "the model name for clients (default: the checkpoint's)", metavar="NAME")
    version: int = option(1, "version to write; other versions are kept", metavar="N", least=1, most=INT64)
    max_batch: int | None = option(
        None, "largest batch, in rows (default: the plan's, else 64)", metavar="N", least=1, most=INT32
    )
    instances: int = option(
        1, "number of instances of the model, on each GPU if there are several", metavar="N", least=1, most=INT32
    )
    queue: int = option(
        256,
        "number of requests that the queue takes; further requests are refused with 503",
        metavar="N",
        least=1,
        most=UINT32,
    )
    timeout_ms: int = option(
        5000,
        "longest time in the queue before a request is refused, in milliseconds",
        metavar="MS",
        least=1,
        most=UINT64 // 1000,
    )
    delay_us: int = option(
        0, "longest wait for further rows while the engine is idle, in microseconds", metavar="US", least=0, most=UINT64
    )
    max_characters: int = option(16_384, "longest accepted text, in characters", metavar="N", least=1)
    cuda_graphs: bool = option(False, "capture CUDA graphs for batches of powers of two (trt)")
    response_cache: bool = option(False, "answer repeated texts from the server's response cache")
    tensorrt: str | None = option(
        None, "ship the plans for this version of TensorRT, if the bundle has plans for several", metavar="VERSION"
    )
    device: str | None = option(None, "device to choose the graph for (ort; default: cuda)", choices=("cpu", "cuda"))
    file: str | None = option(None, "graph of the bundle to ship (ort, python)", metavar="NAME")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options, in the order of the table."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if self.name is not None:
            check_name(self.name)
