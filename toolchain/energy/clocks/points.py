"""The points that a search compares. A point is an SM clock or a power limit that replaces the GPU's own setting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolchain.errors import UsageError
from toolchain.meters.settings import Settings

# One watt in mW: the step between the power limits that are tried.
WATT_MW = 1000


@dataclass(frozen=True)
class Point:
    """An SM clock (MHz) or a power limit (mW) to set; with neither, the GPU keeps its settings ("as found")."""

    sm_mhz: int | None = None
    power_limit_mw: int | None = None

    @property
    def name(self) -> str:
        """Name of the point in tables and in the record, such as 900 MHz or 60 W."""
        if self.sm_mhz is not None:
            return f"{self.sm_mhz} MHz"
        return "as found" if self.power_limit_mw is None else f"{self.power_limit_mw / WATT_MW:g} W"

    def of(self, first: Settings) -> Settings:
        """Return the settings to apply for this point to a GPU that had the settings `first` at the start."""
        if self.sm_mhz is not None:
            return replace(first, locked_mhz=(self.sm_mhz, self.sm_mhz))
        return first if self.power_limit_mw is None else replace(first, power_limit_mw=self.power_limit_mw)


AS_FOUND = Point()


@dataclass(frozen=True)
class Scale:
    """All points that a GPU can be set to, in rising order: SM clocks, and power limits in steps of 1 W."""

    clocks: tuple[Point, ...]
    limits: tuple[Point, ...] = ()

    def coarse(self, count: int) -> list[Point]:
        """Return `count` evenly spaced clocks from the lowest to the highest, and as many power limits, if any.

        If there are fewer than `count` of either, all of them are returned.
        """
        return [*spread(self.clocks, count), *spread(self.limits, count)]

    def fine(self, least: Point, tried: Sequence[Point]) -> list[Point]:
        """Return the untried points halfway between `least`, the best point, and its nearest tried neighbours."""
        axis = self.clocks if least.sm_mhz is not None else self.limits
        if least not in axis:
            return []
        at, known = axis.index(least), sorted(axis.index(one) for one in tried if one in axis)
        below, above = (one for one in known if one < at), (one for one in known if one > at)
        beside = [max(below, default=at), min(above, default=at)]
        halfway = [axis[(at + other) // 2] for other in beside]
        return [one for one in dict.fromkeys(halfway) if one not in tried]


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """Return `count` evenly spaced points, the first and the last included; all points if there are no more."""
    if len(points) <= count:
        return list(points)
    return [points[round(at * (len(points) - 1) / (count - 1))] for at in range(count)]


def scale(clocks: Sequence[int], limits_mw: tuple[int, int] | None) -> Scale:
    """Return all points: the supported clocks in MHz, and a range of power limits in mW (None for no power limits)."""
    watts = range(limits_mw[0], limits_mw[1] + 1, WATT_MW) if limits_mw else ()
    return Scale(
        tuple(Point(sm_mhz=mhz) for mhz in sorted(clocks)), tuple(Point(power_limit_mw=limit) for limit in watts)
    )


def parse_lock(text: str) -> tuple[int, int]:
    """Return the lowest and the highest clock, in MHz, of a lock such as 900,1200; for 900, both are 900.

    Raises:
        UsageError: the text is neither one number nor two numbers in rising order.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or numbers != sorted(numbers) or numbers[0] < 1:
        raise UsageError(f"--locked {text}: not a clock in MHz. Write --locked MHZ, or --locked LOWEST,HIGHEST.")
    return numbers[0], numbers[-1]


def parse_clocks(text: str, supported: Sequence[int]) -> list[Point]:
    """Return the points for a list of SM clocks in MHz, such as 600,900,1200.

    Raises:
        UsageError: a part is not a number, or the GPU does not support that clock; the message then has the nearest
            supported one.
    """
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal():
            raise UsageError(f"--sm-clocks {text}: {part!r} is not a clock in MHz. Write --sm-clocks 600,900,1200.")
        mhz = int(part)
        if mhz not in supported:
            nearest = min(supported, key=lambda one: abs(one - mhz))
            raise UsageError(f"--sm-clocks {text}: this GPU does not support {mhz} MHz. The nearest is {nearest} MHz.")
        found.append(Point(sm_mhz=mhz))
    return list(dict.fromkeys(found))
