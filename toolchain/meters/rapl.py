"""RAPL: energy of processor packages and main memory, from the files of Linux's powercap driver.

Each zone is a folder with `name`, `energy_uj` (a counter in microjoules that wraps) and `max_energy_range_uj` (where it
wraps): kernel documentation, power/powercap. Zones are recognised by name. The energy of all packages is added up.
`dram` is a child of its package, but its energy is not in the package's counter, so it is a component of its own. The
energy of `core` and `uncore` is in the package's counter, and `psys` covers the whole platform, so these three are not
read. The counters cover the whole machine, not a single process.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/class/powercap")

# Reason codes: the machine has no RAPL zone, this user may not read the zones, or a zone can no longer be read.
ABSENT, PERMISSION, LOST = "rapl_absent", "rapl_permission", "rapl_lost"

# Number of attempts to read two counters without a tick in between. Counters tick about every millisecond, so the first
# attempt usually succeeds.
MIRROR_READINGS = 10

PACKAGE = re.compile(r"package-\d+(-die-\d+)?")


@dataclass(frozen=True)
class Zone:
    """One RAPL zone and its energy counter.

    `component` is cpu_package or cpu_dram, `range_uj` the value in microjoules at which the counter wraps.
    """

    component: str
    name: str
    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter in microjoules.

        Raises:
            OSError: the counter cannot be read.
            ValueError: the file does not contain a number.
        """
        return int((self.folder / "energy_uj").read_text())


def find_zones(root: Path = ROOT) -> tuple[list[Zone], str | None]:
    """Return the zones whose energy can be read and added up, and None; without zones, [] and the reason code.

    Zones that repeat another zone are left out: those of the memory-mapped interface (mmio) with the same name, and
    dies that show the counter of an earlier die, as on some AMD processors.
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
    """Return the zones, except those whose counter equals the counter of an earlier zone to the microjoule."""
    kept: list[Zone] = []
    for zone in zones:
        if not any(_is_mirror(zone, other) for other in kept if other.component == zone.component):
            kept.append(zone)
    return kept


def _is_mirror(zone: Zone, other: Zone) -> bool:
    """Return whether two counters are equal when both are read between two ticks, which are about 1 ms apart."""
    for _ in range(MIRROR_READINGS):
        before, value, after = other.read_uj(), zone.read_uj(), other.read_uj()
        if before == after:
            break
    return value == before != 0


@dataclass
class Counter:
    """Adds up the energy of a zone since the object was created, although the zone's counter wraps.

    Call `update` at least once a minute: at 200 W, a counter that wraps at 262 kJ does so every 22 minutes, and two
    wraps between two calls would count as one.
    """

    zone: Zone
    total_uj: int = 0
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.zone.read_uj()

    def update(self) -> None:
        """Add the energy since the last call. A counter that is below its last value has wrapped.

        Raises:
            OSError: the counter can no longer be read.
        """
        now = self.zone.read_uj()
        self.total_uj += (now - self._last) % (self.zone.range_uj or 2**64)
        self._last = now

    @property
    def joules(self) -> float:
        """Energy in joules from the creation of the object to the last `update`."""
        return self.total_uj / 1e6
