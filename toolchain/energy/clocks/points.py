"""The points that are compared: an SM clock, or a power limit, in the place of the settings that the GPU has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolchain.errors import UsageError
from toolchain.meters.settings import Settings

# Power limits that are tried are whole watts.
WATT_MW = 1000


@dataclass(frozen=True)
class Point:
    """What is set: an SM clock, a power limit, or neither, which leaves the GPU as it was found."""

    sm_mhz: int | None = None
    power_limit_mw: int | None = None

    @property
    def name(self) -> str:
        """Name in tables and in the record."""
        if self.sm_mhz is not None:
            return f"{self.sm_mhz} MHz"
        return "as found" if self.power_limit_mw is None else f"{self.power_limit_mw / WATT_MW:g} W"

    def of(self, first: Settings) -> Settings:
        """Return the settings of a GPU whose settings were `first`."""
        if self.sm_mhz is not None:
            return replace(first, locked_mhz=(self.sm_mhz, self.sm_mhz))
        return first if self.power_limit_mw is None else replace(first, power_limit_mw=self.power_limit_mw)


AS_FOUND = Point()


@dataclass(frozen=True)
class Scale:
    """The points that a GPU can be set to: every clock, and every whole watt, both rising."""

    clocks: tuple[Point, ...]
    limits: tuple[Point, ...] = ()

    def coarse(self, count: int) -> list[Point]:
        """Return `count` clocks spread evenly from the lowest to the highest, and as many power limits."""
        return [*spread(self.clocks, count), *spread(self.limits, count)]

    def fine(self, least: Point, tried: Sequence[Point]) -> list[Point]:
        """Return the points halfway between the best so far and its neighbours among those that were tried."""
        axis = self.clocks if least.sm_mhz is not None else self.limits
        if least not in axis:
            return []
        at, known = axis.index(least), sorted(axis.index(one) for one in tried if one in axis)
        below, above = (one for one in known if one < at), (one for one in known if one > at)
        beside = [max(below, default=at), min(above, default=at)]
        halfway = [axis[(at + other) // 2] for other in beside]
        return [one for one in dict.fromkeys(halfway) if one not in tried]


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """Return `count` of the points, evenly spaced with the first and the last; all if there are not more."""
    if len(points) <= count:
        return list(points)
    return [points[round(at * (len(points) - 1) / (count - 1))] for at in range(count)]


def scale(clocks: Sequence[int], limits_mw: tuple[int, int] | None) -> Scale:
    """Return the scale of supported clocks in MHz, and of the range of the power limit if limits are compared too."""
    watts = range(limits_mw[0], limits_mw[1] + 1, WATT_MW) if limits_mw else ()
    return Scale(
        tuple(Point(sm_mhz=mhz) for mhz in sorted(clocks)), tuple(Point(power_limit_mw=limit) for limit in watts)
    )


def parse_lock(text: str) -> tuple[int, int]:
    """Return the lowest and highest clock of a lock such as 900,1200 or 900.

    Raises:
        UsageError: it is not one number or two rising ones.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or numbers != sorted(numbers) or numbers[0] < 1:
        raise UsageError(f"--locked {text}: not a clock in MHz. Write --locked MHZ, or --locked LOWEST,HIGHEST.")
    return numbers[0], numbers[-1]


def parse_clocks(text: str, supported: Sequence[int]) -> list[Point]:
    """Return the clocks of a list such as 600,900,1200.

    Raises:
        UsageError: one is not a number, or the GPU does not support it; the message has the nearest that it does.
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
