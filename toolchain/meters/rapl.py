"""RAPL: energy of processor packages and main memory, from the files of Linux's powercap driver.

Each zone is a folder with `name`, `energy_uj` (a counter in microjoules that wraps) and `max_energy_range_uj` (where it
wraps): kernel documentation, power/powercap. Zones are recognised by name. Packages are added up. `dram` is a child of
its package, but its energy is not in the package's counter. `core` and `uncore` are in it, and `psys` is the whole
platform: these three are never added. The figures are those of the machine, not of a process.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/class/powercap")

# Reason codes: there is no such zone, this user may not read it, or it cannot be read any more.
ABSENT, PERMISSION, LOST = "rapl_absent", "rapl_permission", "rapl_lost"

# Attempts to read two counters without a tick in between; counters tick every millisecond, so one attempt usually does.
MIRROR_READINGS = 10

PACKAGE = re.compile(r"package-\d+(-die-\d+)?")


@dataclass(frozen=True)
class Zone:
    """One counter; `component` is cpu_package or cpu_dram, `range_uj` the value at which it wraps."""

    component: str
    name: str
    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter in microjoules.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not a number.
        """
        return int((self.folder / "energy_uj").read_text())


def find_zones(root: Path = ROOT) -> tuple[list[Zone], str | None]:
    """Return the zones that can be read and added up; if there are none, the reason code, else None.

    A zone of the memory-mapped interface with the name of another zone is the same zone. Where several dies show one
    counter, as on some AMD processors, only the first is returned.
    """
    zones: dict[tuple[str, str], Zone] = {}
    refused = False
    for folder in sorted(root.glob("*rapl*:*"), key=lambda path: ("mmio" in path.name, path.name)):
        try:
            zone = _zone(folder)
            if zone is not None and (key := (zone.component, zone.name)) not in zones:
                zone.read_uj()
                zones[key] = zone
        except PermissionError:
            refused = True
        except (OSError, ValueError):
            continue
    found = _without_mirrors(list(zones.values()))
    return found, None if found else PERMISSION if refused else ABSENT


def _zone(folder: Path) -> Zone | None:
    name = (folder / "name").read_text().strip()
    limit = int((folder / "max_energy_range_uj").read_text())
    if PACKAGE.fullmatch(name):
        return Zone("cpu_package", name, folder, limit)
    if name == "dram":
        package = folder.name.rpartition(":")[0].replace("-mmio", "")
        return Zone("cpu_dram", f"{package} dram", folder, limit)
    return None


def _without_mirrors(zones: list[Zone]) -> list[Zone]:
    """Drop zones whose counter equals, to the microjoule, that of an earlier zone."""
    kept: list[Zone] = []
    for zone in zones:
        if not any(_is_mirror(zone, other) for other in kept if other.component == zone.component):
            kept.append(zone)
    return kept


def _is_mirror(zone: Zone, other: Zone) -> bool:
    """Whether two counters are equal, read within one tick: they move a thousand times a second."""
    for _ in range(MIRROR_READINGS):
        before, value, after = other.read_uj(), zone.read_uj(), other.read_uj()
        if before == after:
            break
    return value == before != 0


@dataclass
class Counter:
    """Energy of a zone since this object was made.

    Call `update` at least once a minute: at 200 W a counter of 262 kJ wraps every 22 minutes, and two wraps between two
    calls would count as one.
    """

    zone: Zone
    total_uj: int = 0
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.zone.read_uj()

    def update(self) -> None:
        """Add the energy since the last call; a counter below its last value has wrapped.

        Raises:
            OSError: it cannot be read any more.
        """
        now = self.zone.read_uj()
        self.total_uj += (now - self._last) % (self.zone.range_uj or 2**64)
        self._last = now

    @property
    def joules(self) -> float:
        """Joules since this object was made."""
        return self.total_uj / 1e6
