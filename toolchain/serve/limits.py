"""What one request, and all that wait, may ask of the service."""

from dataclasses import dataclass

from toolchain.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds; what is over one is refused before any work is done for it.

    `max_batch`: rows a request, and rows that run together; `max_tokens`: padded positions that run together;
    `max_characters`: of one text; `max_queue`: rows that wait; `max_body_bytes`: of a request, and of what it
    unpacks to; `timeout_s`: longest wait before the engine.
    """

    max_batch: int = 64
    max_tokens: int = 4096
    max_characters: int = 16_384
    max_queue: int = 1024
    max_body_bytes: int = 1 << 20
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                option = name.removesuffix("_s").removesuffix("_bytes").replace("_", "-")
                raise UsageError(f"--{option} {value}: not above zero. Give a larger number.")
        if self.max_queue < self.max_batch:
            raise UsageError(
                f"--max-queue {self.max_queue}: a request of --max-batch {self.max_batch} rows would never fit. "
                f"Give {self.max_batch} or more."
            )


HANG_S = 60.0
"""An engine that is at one batch for longer will hardly end it: those who wait for it are told, and it gets no more."""
GRACE_S = 10.0
"""At the end, for what runs then: above the longest that a request may wait."""

DEFAULTS = Limits()
