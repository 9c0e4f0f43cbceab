"""Measure the energy of a block of Python code, of a command, or of the machine until a signal.

An energy counter is updated at intervals; an update is called a tick. The meter needs about a second to start: it
watches every counter until its update period is known, and begins the measurement on a tick of the slowest counter. The
measurement may end between two ticks. The joules of the last, incomplete tick are then interpolated, with an error of
at most the energy of that tick, which `edge_error_j` gives. For an update period T and a measurement of length L that
is about T / L of the total. On GPUs T is 20 to 100 ms, so the error is up to 5 % in two seconds and 0.2 % in a minute.
Counters whose ticks do not coincide with those of the slowest one add the same error at the beginning.

To measure a runtime on a task, use `toolchain eval --energy`: its windows begin and end on ticks, and it reports idle
power and confidence intervals.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from toolchain.energy.power.reading import Reading, close
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.meters import rapl
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import COMPONENTS, open_sources
from toolchain.records.power import PowerEnvironment, PowerRecord
from toolchain.runtimes.environment import describe

SCHEMA = 1

# Signals that by default would end this process before it has a record.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Interval in seconds at which `watch` calls `draw`.
SHOWN_S = 1.0

Powers = dict[str, float | None]  # component -> mean power in W; None if it was not measured


def _sleep_until(ended: threading.Event, seconds: float) -> None:
    """Sleep until `seconds` have passed or `ended` is set; if `ended` is already set, sleep the whole time."""
    (time.sleep if ended.is_set() else ended.wait)(seconds)


@contextmanager
def measure(
    device: str = "auto",
    *,
    require_energy: bool = False,
    powercap: Path = rapl.ROOT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[Reading]:
    """Measure the energy of GPUs, processor packages and main memory while the body of `with` runs.

    The meter needs about a second before the body starts. The reading has its figures when the body has ended.

        with toolchain.measure_energy() as reading:
            total = sum(range(10_000_000))
        print(f"{reading.seconds:.1f} s, {reading.total_j} J", reading.missing)

    Attributes of the reading, None where nothing was measured:
        seconds, total_j: length of the body in seconds, and joules of all components together.
        joules: component (gpu_board, gpu_memory, cpu_package, cpu_dram) -> joules.
        missing: component without joules -> reason code, such as no_nvml_library.
        mean_power_w, peak_power_w: mean and highest power, W.
        edge_error_j, relative_edge_error: largest error caused by the end of the body, in J and as a fraction.
        samples, context, flags: power over time (W, every 50 ms), conditions of the GPUs, and remarks in words.

    Synchronise GPU work at the end of the body. If the body raises, the reading covers the time until then.

    Args:
        device: auto adds up every GPU that CUDA shows; cuda:N selects one GPU; cpu leaves GPUs out of the total.
        require_energy: raise `MachineError` before the body runs if nothing can be measured.
        powercap: folder of the RAPL zones.
        clock: returns seconds.
        sleep: waits for seconds, in the meter's thread.

    Raises:
        UsageError: `device` is unknown.
        MachineError: `require_energy` is set, and nothing can be measured.
    """
    ended = threading.Event()
    sleep = sleep or functools.partial(_sleep_until, ended)
    with _open(device, powercap, clock, sleep) as meter, ThreadPoolExecutor(1, "power") as pool:
        if require_energy:
            _require(meter, "--require-energy")
        reading, opened_s = Reading(device), meter.edge()
        closed = pool.submit(_poll, meter, ended)
        try:
            yield reading
        finally:
            ended.set()
            reading.end(meter, opened_s, closed.result())


def _poll(meter: EnergyMeter, ended: threading.Event) -> float:
    meter.watch(ended.is_set)
    return close(meter)


@contextmanager
def _open(
    device: str, powercap: Path, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[EnergyMeter]:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device {device}: this device is unknown. Choose auto, cpu or cuda[:N].")
    with open_sources(device, powercap=powercap) as inventory:
        yield EnergyMeter(inventory, clock, sleep)


def _require(meter: EnergyMeter, where: str) -> None:
    if not meter.readings:
        raise _nothing(where, {name: reason for name, (reason, _) in meter.missing.items()})


def _nothing(where: str, reasons: dict[str, str]) -> MachineError:
    shown = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return MachineError(
        f"{where}: this machine cannot measure any energy ({shown}). Run `toolchain doctor` for advice."
    )


def run(
    command: Sequence[str],
    *,
    device: str = "auto",
    require_energy: bool = False,
    stdout: int | None = None,
    powercap: Path = rapl.ROOT,
) -> PowerRecord:
    """Run a command, measure its energy, and return the record.

    The command shares stdin, stdout and stderr of this process. Signals that would end this process go to the command,
    and this function waits until the command has ended. If a signal ended the command, its `exit_code` in the record is
    128 plus the number of the signal.

    Args:
        command: name or path of the program, and its arguments.
        device: as in `measure`.
        require_energy: raise `MachineError` before the command starts if nothing can be measured.
        stdout: descriptor of a file for the command's output, instead of this process's.
        powercap: folder of the RAPL zones.

    Raises:
        InputError: the command does not exist, or cannot be started.
        UsageError: `device` is unknown.
        MachineError: `require_energy` is set, and nothing can be measured.
    """
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]}: this command does not exist. Check its name, or give its path.")
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int) -> None:
        if child is None:
            raise KeyboardInterrupt
        if number != signal.SIGINT or not _terminal_interrupts():
            child.send_signal(number)

    with _handled(forward), measure(device, require_energy=require_energy, powercap=powercap) as reading:
        child = _start(command, stdout)
        code = child.wait()
    return record(reading, command=command, exit_code=code if code >= 0 else 128 - code)


def _start(command: Sequence[str], stdout: int | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdout=stdout)  # noqa: S603  # the user's own command
    except OSError as error:
        raise InputError(
            f"{command[0]}: the command cannot be started ({error.strerror}). Check that it runs without toolchain."
        ) from error


def _terminal_interrupts() -> bool:
    """Return whether the terminal itself sends Ctrl-C to the command, which shares our foreground process group."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` for signals that would end this process. Signals that are ignored, as under nohup, stay ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # only the main thread may set handlers
    before = {number: signal.getsignal(number) for number in ENDING if in_main_thread}
    ours = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in ours:
        signal.signal(number, lambda number, _: handle(number))
    try:
        yield
    finally:
        for number, old in ours.items():
            signal.signal(number, old)


def watch(
    draw: Callable[[float, Powers], None],
    *,
    seconds: float | None = None,
    device: str = "auto",
    powercap: Path = rapl.ROOT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> PowerRecord:
    """Measure the power of the machine for some seconds, or until a signal such as Ctrl-C, and return the record.

    Args:
        draw: called every second with the seconds since the start and each component's mean watts in that second.
        seconds: length of the measurement; None to measure until a signal.
        device: as in `measure`.
        powercap: folder of the RAPL zones.
        clock: returns seconds.
        sleep: waits for seconds.

    Raises:
        UsageError: `device` is unknown.
        MachineError: nothing can be measured.
    """
    stopped: list[int] = []  # a list, not an Event, because a signal handler must not wait for a lock
    reading = Reading(device)
    with _open(device, powercap, clock, sleep) as meter, _handled(stopped.append):
        _require(meter, "power")
        opened_s = now_s = meter.edge()
        end_s = float("inf") if seconds is None else opened_s + seconds

        def is_due() -> bool:
            return bool(stopped) or meter.clock() >= min(drawn_s + SHOWN_S, end_s)

        while now_s < end_s and not stopped:
            drawn_s = now_s
            meter.watch(is_due)
            now_s = meter.clock()
            meter.poll()
            last = meter.between(drawn_s, now_s)
            draw(now_s - opened_s, {name: _power_w(last.component_j(name), last.seconds) for name in COMPONENTS})
        reading.end(meter, opened_s, close(meter))
    return record(reading)


def _power_w(joules: float | None, seconds: float) -> float | None:
    return None if joules is None else joules / seconds


def record(reading: Reading, *, command: Sequence[str] | None = None, exit_code: int | None = None) -> PowerRecord:
    """Return the record of a reading, with the command (if one was measured) and a description of the machine."""
    here = describe()
    # The versions of packages are left out, because the command may run in another environment.
    machine: PowerEnvironment = {
        "cpu": here["cpu"],
        "threads": here["threads"],
        "gpu": here["gpu"],
        "driver": here["driver"],
        "cuda": here["cuda"],
        "platform": here["platform"],
    }
    return {
        "schema": SCHEMA,
        "command": None if command is None else list(command),
        "exit_code": exit_code,
        **reading.to_json(),
        "environment": machine,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def judge(found: PowerRecord) -> None:
    """Check for --require-energy that something was measured.

    A command that failed is not checked, so that its own exit code is reported.

    Raises:
        MachineError: nothing was measured.
    """
    if found["status"] == "unavailable" and not found["exit_code"]:
        raise _nothing("--require-energy", {name: one["reason"] or "" for name, one in found["components"].items()})
