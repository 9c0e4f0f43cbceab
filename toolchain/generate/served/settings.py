"""The options of `toolchain generate --backend openai`."""

from dataclasses import dataclass, fields

from toolchain.errors import UsageError
from toolchain.recipe.options import check, option


@dataclass(frozen=True, kw_only=True)
class ServedSettings:
    """How much text is generated, with how many streams at once, and which GPUs run the server."""

    max_new_tokens: int = option(64, "largest number of new tokens for each prompt", metavar="N", least=1)
    rounds: int = option(3, "number of times that each prompt is sent", metavar="N", least=1)
    concurrency: str = option(
        "1", "number of streams at once (openai); several, separated by commas, run in turn", metavar="N[,N]"
    )
    devices: str | None = option(
        None, "GPUs of this machine that run the server, whose energy is measured (openai; default: all)", metavar="0,1"
    )
    timeout: float = option(120.0, "longest wait for data from the server, in seconds (openai)", metavar="S")

    def __post_init__(self) -> None:
        for field in fields(self):
            check(field, getattr(self, field.name))
        if not 0 < self.timeout < float("inf"):
            raise UsageError(
                f"--timeout {self.timeout:g}: this is not a time in seconds above 0. Give 120, for example."
            )
        _ = self.levels, self.device

    @property
    def levels(self) -> tuple[int, ...]:
        """The numbers of streams, in the order in which they were given, without duplicates."""
        return _numbers("--concurrency", self.concurrency, least=1)

    @property
    def device(self) -> str:
        """The GPUs in the form that `open_meter` takes: `cuda` for all, or such as `cuda:0,1`."""
        if self.devices is None:
            return "cuda"
        return "cuda:" + ",".join(map(str, _numbers("--devices", self.devices, least=0)))


def _numbers(where: str, text: str, *, least: int) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdecimal() and int(part) >= least):
            raise UsageError(f"{where} {text}: {part!r} is not a whole number of {least} or more. Give N or N,N.")
    return tuple(dict.fromkeys(map(int, parts)))
