"""RAPL: what processor packages and their memory used, from the files of Linux's powercap driver.

Each zone is a folder with `name`, `energy_uj`, a counter in microjoules that wraps, and `max_energy_range_uj`, where it
wraps (kernel documentation, power/powercap). Zones are known by name: packages add up, `dram` is a child of its
package but not part of its figure, `core` and `uncore` are part of it, and `psys` is the whole platform: never added.
The figures are the machine's, not a process's.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/class/powercap")

ABSENT, PERMISSION, LOST = "rapl_absent", "rapl_permission", "rapl_lost"
"""Why there is no figure: no such zone, not readable by this user, or not any more."""

MIRROR_READINGS = 10
"""Of which one is between two ticks."""

PACKAGE = re.compile(r"package-\d+(-die-\d+)?")


@dataclass(frozen=True)
class Zone:
    """One counter: `component` is cpu_package or cpu_dram."""

    component: str
    name: str
    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no number.
        """
        return int((self.folder / "energy_uj").read_text())


def find_zones(root: Path = ROOT) -> tuple[list[Zone], str | None]:
    """Return the zones that can be read and are to be added up, and why there are none.

    A zone of the memory-mapped interface that has the name of another is the same zone; of dies that mirror one
    counter, as on some AMD processors, the first is taken.
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
    """Drop zones whose counter stands, to the microjoule, where one before it does."""
    kept: list[Zone] = []
    for zone in zones:
        if not any(_is_mirror(zone, other) for other in kept if other.component == zone.component):
            kept.append(zone)
    return kept


def _is_mirror(zone: Zone, other: Zone) -> bool:
    """Whether two counters say the same; read in one millisecond, as they move a thousand times a second."""
    for _ in range(MIRROR_READINGS):
        before, value, after = other.read_uj(), zone.read_uj(), other.read_uj()
        if before == after:
            break
    return value == before != 0


@dataclass
class Counter:
    """What a zone used since the counter was made.

    `update` it at least once a minute: at 200 W a counter of 262 kJ wraps every 22 minutes, and of two wraps
    only one is seen.
    """

    zone: Zone
    total_uj: int = 0
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.zone.read_uj()

    def update(self) -> None:
        """Add what was used since the last call; a counter below where it was has wrapped.

        Raises:
            OSError: it cannot be read any more.
        """
        now = self.zone.read_uj()
        self.total_uj += (now - self._last) % (self.zone.range_uj or 2**64)
        self._last = now

    @property
    def joules(self) -> float:
        """Joules since the counter was made."""
        return self.total_uj / 1e6
