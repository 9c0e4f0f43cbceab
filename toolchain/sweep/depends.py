"""Find what a result depends on besides its options: files of model and data, versions of packages, and the machine."""

import os
import platform
from pathlib import Path

from toolchain import __version__
from toolchain.base.files import read_json, sha256_file, sha256_json, write_json
from toolchain.base.processors import cpu_threads
from toolchain.errors import InputError
from toolchain.runtimes.environment import PACKAGES, cpu_name, version_of
from toolchain.sweep.cells import Depends, Options

# Options that name files or folders.
PLACES = ("model", "data", "calib_data", "calibration", "token_file")

# NVIDIA's driver has a folder for each GPU here.
GPUS = Path("/proc/driver/nvidia/gpus")

# Path -> size, time of the last change in ns, and SHA-256.
Known = dict[str, tuple[int, int, str]]


class Digests:
    """Computes the SHA-256 of files and folders. A file is read again only if its size or change time differs."""

    def __init__(self, memory: Path, *, own: Path | None = None) -> None:
        """Read known digests from the file `memory`. `own` is the sweep's folder, by default the folder of `memory`."""
        self._memory, self._own = memory, (own or memory.parent).absolute()
        self._known, self._new = _read(memory), False

    def of(self, place: Path) -> str:
        """Return the digest of a file, or of the names and contents of all files in a folder.

        Files in the folder of the sweep are left out. That folder changes with each cell, and with `model = "."` it may
        lie in the folder of the model.
        """
        if place.is_file():
            return self._file(place)
        files = sorted(path for path in place.rglob("*") if path.is_file() and self._own not in path.absolute().parents)
        return sha256_json([[str(path.relative_to(place)), self._file(path)] for path in files])

    def keep(self) -> None:
        """Write the known digests to the file `memory`, if a file was read since."""
        if self._new:
            write_json(self._memory, self._known)
            self._new = False

    def _file(self, path: Path) -> str:
        state, place = path.stat(), str(path.absolute())
        size, changed, digest = self._known.get(place, (-1, -1, ""))
        if (size, changed) != (state.st_size, state.st_mtime_ns):
            digest, self._new = sha256_file(path), True
            self._known[place] = (state.st_size, state.st_mtime_ns, digest)
        return digest


def _read(memory: Path) -> Known:
    try:
        found = read_json(memory, what="digests", advice="")
        return {path: (int(size), int(changed), str(digest)) for path, (size, changed, digest) in found.items()}
    except (InputError, AttributeError, TypeError, ValueError):  # a damaged file is ignored and written again
        return {}


def depends_on(digests: Digests) -> Depends:
    """Return a function from options to what a result with these options depends on.

    It returns versions, the machine, and path -> digest of each local file or folder that an option names. For a hub id
    or a built-in task, only the name in the options counts.
    """
    here = {"versions": versions(), "toolchain": __version__, "machine": machine()}

    def depends(options: Options) -> object:
        task = str(options.get("task", ""))
        places = [str(options[key]) for key in PLACES if key in options]
        places += [task if task.endswith(".toml") else f"eval/{task}.toml"]
        return [here, {place: digests.of(Path(place)) for place in places if Path(place).exists()}]

    return depends


def versions() -> dict[str, str]:
    """Return package -> version, for the installed packages that a result depends on."""
    return {name: version for name in PACKAGES if (version := version_of(name))}


def machine() -> dict[str, object]:
    """Return what distinguishes machines by speed: processor, threads, models of the GPUs, and operating system."""
    gpus = [line for file in sorted(GPUS.glob("*/information")) for line in _model(file)]
    return {
        "cpu": cpu_name(),
        "threads": cpu_threads(),
        "of": os.cpu_count(),
        "gpus": gpus,
        "system": platform.system(),
    }


def _model(file: Path) -> list[str]:
    try:
        return [line.split(":", 1)[1].strip() for line in file.read_text().splitlines() if line.startswith("Model")]
    except OSError:
        return []
