"""Bounds on a request, on the queue and on waiting."""

from dataclasses import dataclass

from toolchain.errors import UsageError
from toolchain.recipe.options import flag


@dataclass(frozen=True)
class Limits:
    """Bounds of the service. A request above one of them is refused before any work is done for it."""

    # Rows of one request, and rows of one batch.
    max_batch: int = 64
    # Padded positions of one batch: its rows times its longest row, in tokens.
    max_tokens: int = 4096
    # Characters of one text.
    max_characters: int = 16_384
    # Rows that may wait in the queue.
    max_queue: int = 1024
    # Bytes of a request's body, both as it arrives and unpacked.
    max_body_bytes: int = 1 << 20
    # Longest wait in the queue, in seconds.
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                option = flag(name.removesuffix("_s").removesuffix("_bytes"))
                raise UsageError(f"{option} {value}: not above zero. Give a larger number.")
        if self.max_queue < self.max_batch:
            raise UsageError(
                f"--max-queue {self.max_queue}: a request of --max-batch {self.max_batch} rows would never fit. "
                f"Give {self.max_batch} or more."
            )


# An engine that runs one batch for longer than this counts as hanging: its requests are refused, and it gets no more
# batches.
ENGINE_TIMEOUT_S = 60.0

# At shutdown, the time for batches that are in flight, in addition to the longest wait in the queue.
GRACE_S = 10.0

DEFAULTS = Limits()
