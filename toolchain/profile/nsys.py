"""Nsight Systems: the command that records our NVTX ranges, and its report read back into the same groups."""

import csv
import io
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from toolchain.errors import InputError, MachineError
from toolchain.profile.groups import GROUPS

REPORT = "nvtx_sum"
COLUMNS = ("Total Time (ns)", "Instances", "Range")
"""Those of the report that are read; the others are shares and statistics of the first."""

CALL, INFER = "call", "infer"
"""The ranges around one whole call, and around what the runtime does of it."""


def nsys_command(command: list[str]) -> str:
    """Return the line to type so that Nsight Systems records `command`."""
    return f"nsys profile -t cuda,nvtx -o toolchain-profile {shlex.join(command)}"


def read_nsys(file: Path) -> dict[str, Any]:
    """Return milliseconds a call by group, from `nsys stats --report nvtx_sum --format csv` or a recording of nsys.

    NVTX ranges are on the host's clock: kernels that a range only queued end after it.

    Returns:
        {"file", "calls", "groups": [{"group", "ms", "share"}], "layers": [{"name", "group", "layer", "calls", "ms"}],
        "not_ours": [range]}; the last are ranges of others, counted nowhere.

    Raises:
        InputError: the file is missing, no such report, or holds no range of ours.
        MachineError: it is a recording, and nsys is not here to read it.
    """
    text = _stats(file) if file.suffix in (".nsys-rep", ".qdrep") else _text(file)
    try:
        found = {
            _name(row["Range"]): (int(_plain(row["Instances"])), float(_plain(row["Total Time (ns)"])) / 1e6)
            for row in _rows(file, text)
        }
    except ValueError as error:
        raise InputError(f"{file}: not a report of nsys ({error}). Make it with: nsys stats --format csv.") from None
    if CALL not in found:
        raise InputError(f"{file}: holds no range of toolchain profile. Record it with: {nsys_command(['...'])}.")
    calls, wall_ms = found.pop(CALL)
    found.pop(INFER, None)
    ms, layers, others = dict.fromkeys(GROUPS, 0.0), [], []
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
    groups = [{"group": group, "ms": time, "share": time / whole} for group, time in ms.items() if time]
    return {"file": str(file), "calls": calls, "groups": groups, "layers": layers, "not_ours": sorted(others)}


def _plain(number: str) -> str:
    """Return a number without the commas that nsys may write between thousands."""
    return number.replace(",", "")


def _name(text: str) -> str:
    """Return a range's name without its domain: nsys writes DOMAIN:NAME, and the default domain has no name."""
    return text.removeprefix(":")


def _rows(file: Path, text: str) -> list[dict[str, str]]:
    """Return the lines of the table, which may stand behind notes of nsys."""
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if COLUMNS[0] in line and "Range" in line), None)
    if start is None:
        raise InputError(
            f"{file}: has no columns {', '.join(COLUMNS)}. Make it with: nsys stats --report {REPORT} --format csv."
        )
    table = csv.DictReader(io.StringIO("\n".join(lines[start:])))
    return [row for row in table if row.get("Range")]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}). Give a CSV or a .nsys-rep.") from None


def _stats(file: Path) -> str:
    """Return the report that nsys makes of a recording."""
    nsys = shutil.which("nsys")
    if nsys is None:
        raise MachineError(f"{file}: nsys is not on the PATH. Install Nsight Systems, or give the CSV of nsys stats.")
    command = [nsys, "stats", "--report", REPORT, "--format", "csv", "--output", "-", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # its own path
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it does not say why").splitlines()[-1]
        raise InputError(f"{file}: nsys cannot read it: {last}. Record it again.")
    return done.stdout
