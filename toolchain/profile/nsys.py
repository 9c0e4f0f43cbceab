"""Nsight Systems (nsys): return the command that records the NVTX ranges of `toolchain profile`; read its report."""

import csv
import io
import shlex
import shutil
import subprocess
from pathlib import Path

from toolchain.errors import InputError, MachineError
from toolchain.profile.groups import GROUPS
from toolchain.records.profile import GroupTime, LayerTime, NsysRecord

REPORT = "nvtx_sum"

# Columns of the report that are read. The other columns are statistics of the first one.
COLUMNS = ("Total Time (ns)", "Instances", "Range")

# Names of the ranges around a whole call, and around the runtime's part of it.
CALL, INFER = "call", "infer"


def nsys_command(command: list[str]) -> str:
    """Return the shell command with which Nsight Systems records `command`."""
    return f"nsys profile -t cuda,nvtx -o toolchain-profile {shlex.join(command)}"


def read_nsys(file: Path) -> NsysRecord:
    """Return the time of each group in ms per call, from a recording of nsys or a CSV of its report `nvtx_sum`.

    NVTX ranges are on the host's clock: kernels that were launched in a range may end after it.

    Raises:
        InputError: the file is missing, is not such a report, or has no range of `toolchain profile`.
        MachineError: the file is a recording, and nsys is not installed.
    """
    text = _stats(file) if file.suffix in (".nsys-rep", ".qdrep") else _text(file)
    try:
        found = {
            _name(row["Range"]): (int(_plain(row["Instances"])), float(_plain(row["Total Time (ns)"])) / 1e6)
            for row in _rows(file, text)
        }
    except ValueError as error:
        raise InputError(
            f"{file}: this is not a report of nsys ({error}). Make one with: nsys stats --report {REPORT} --format csv."
        ) from None
    if CALL not in found:
        how = nsys_command(["..."])
        raise InputError(f"{file}: the report contains no NVTX range of `toolchain profile`. Record it with: {how}.")
    calls, wall_ms = found.pop(CALL)
    found.pop(INFER, None)
    ms = dict.fromkeys(GROUPS, 0.0)
    layers: list[LayerTime] = []
    others: list[str] = []
    for name, (count, total_ms) in found.items():
        group, _, layer = name.partition(".")
        if group not in GROUPS:
            others.append(name)
            continue
        ms[group] += total_ms / calls
        layers.append(
            {
                "name": name,
                "group": group,
                "layer": int(layer) if layer else None,
                "calls": count / calls,
                "ms": total_ms / calls,
            }
        )
    ms["other"] += max(0.0, wall_ms / calls - sum(ms.values()))
    whole = sum(ms.values())
    groups: list[GroupTime] = [
        {"group": group, "ms": time, "share": time / whole} for group, time in ms.items() if time
    ]
    return {"file": str(file), "calls": calls, "groups": groups, "layers": layers, "not_ours": sorted(others)}


def _plain(number: str) -> str:
    """Return a number without nsys's thousands separators."""
    return number.replace(",", "")


def _name(text: str) -> str:
    """Return the name of a range without its domain: nsys writes DOMAIN:NAME, and :NAME for the default domain."""
    return text.removeprefix(":")


def _rows(file: Path, text: str) -> list[dict[str, str]]:
    """Return the rows of the report's table, which may follow other output of nsys."""
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if COLUMNS[0] in line and "Range" in line), None)
    if start is None:
        raise InputError(
            f"{file}: the report lacks the columns {', '.join(COLUMNS)}. "
            f"Make it with: nsys stats --report {REPORT} --format csv."
        )
    table = csv.DictReader(io.StringIO("\n".join(lines[start:])))
    return [row for row in table if row.get("Range")]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: the file cannot be read ({type(error).__name__}). Give a CSV of nsys stats, or a .nsys-rep file."
        ) from None


def _stats(file: Path) -> str:
    """Return the CSV report that `nsys stats` makes of a recording."""
    nsys = shutil.which("nsys")
    if nsys is None:
        raise MachineError(f"{file}: nsys is not on the PATH. Install Nsight Systems, or use the CSV of nsys stats.")
    command = [nsys, "stats", "--report", REPORT, "--format", "csv", "--output", "-", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # no shell
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise InputError(f"{file}: nsys cannot read it: {last}. Record it again.")
    return done.stdout
