"""The options of `toolchain shrink` that no other command has."""

import math
from dataclasses import dataclass, fields

from toolchain.errors import UsageError
from toolchain.recipe.options import check, option

# Minutes of training if neither --steps nor --minutes is given.
DEFAULT_MINUTES = 15.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that say how much of the model is cut, and how long the cut model is trained."""

    ffn: float | None = option(
        None, "fraction of the feed-forward width to keep, rounded to multiples of 64", metavar="SHARE"
    )
    layers: int | None = option(None, "number of layers to keep", metavar="N", least=1)
    target_speed: float | None = option(
        None, "choose --ffn and --layers so that the model does X times fewer multiplications", metavar="X"
    )
    steps: int | None = option(None, "number of training steps", metavar="N", least=1)
    minutes: float | None = option(
        None, f"minutes of training, instead of a number of steps (default {DEFAULT_MINUTES:g})", metavar="M"
    )

    def __post_init__(self) -> None:
        """Raise UsageError for values that are out of range or exclude each other."""
        for field in fields(self):
            check(field, getattr(self, field.name))
        if self.ffn is not None and not 0 < self.ffn <= 1:
            raise UsageError(f"--ffn {self.ffn:g}: the fraction must be above 0 and at most 1. Give 0.5, for example.")
        if self.target_speed is not None and not 1 < self.target_speed < math.inf:
            raise UsageError(
                f"--target-speed {self.target_speed:g}: it is not a number above 1. Give 1.5, for example."
            )
        if self.target_speed is not None and (self.ffn is not None or self.layers is not None):
            raise UsageError(
                "--target-speed: it chooses --ffn and --layers. Leave out either --target-speed or these two."
            )
        if self.target_speed is None and self.ffn is None and self.layers is None:
            raise UsageError("shrink: no option says what to cut. Give --ffn 0.5, --layers N or --target-speed X.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"--minutes {self.minutes:g}: it is not a number above 0. Give 15, for example.")
        if self.minutes is not None and self.steps is not None:
            raise UsageError(f"--minutes {self.minutes:g}: --steps {self.steps} is given too. Leave one of them out.")

    @property
    def training_minutes(self) -> float | None:
        """The minutes of training; None if --steps sets its length."""
        return None if self.steps else self.minutes or DEFAULT_MINUTES
