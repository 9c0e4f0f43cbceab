"""Energy of anything: of a block of Python, of a command, or of the machine while one watches.

Opening takes about a second: every counter is watched until its period is known, and what is measured begins on a tick
of the slowest. It ends anywhere: the joules of the tick that its end cuts are shared out evenly, which leaves open at
most all of them, `edge_error_j`. With a period T and a length L that is about T / L of the total; T is 20 to 100 ms on
GPUs, so up to 5 % of two seconds and 0.2 % of a minute. Counters out of step with the slowest leave open as much at the
beginning. For a runtime on a task, with windows on ticks, a baseline and intervals, there is `toolchain eval --energy`.
"""

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

from toolchain.energy.component import Block
from toolchain.energy.reading import Reading
from toolchain.energy.span import close
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.meters import rapl
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import COMPONENTS, open_sources
from toolchain.runtimes.environment import describe

SCHEMA = 1

ENVIRONMENT = ("cpu", "threads", "gpu", "driver", "cuda", "platform")
"""What of `environment.describe` holds for a command too; its packages may be others than ours."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that would end this process, and with it the record."""

SHOWN_S = 1.0
"""How often `watch` draws."""

Powers = dict[str, float | None]
"""Component -> watts."""


@contextmanager
def measure(
    device: str = "auto",
    *,
    require_energy: bool = False,
    powercap: Path = rapl.ROOT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[Reading]:
    """Measure what is used while the body runs; the reading that is yielded has its figures once the body has ended.

        with power.measure() as reading:
            work()
        print(reading.total_j, reading.missing)

    The body begins about a second later, on a tick; its end leaves open what `edge_error_j` says (see above). Work that
    is queued on a GPU counts only if it is done in the body: synchronise there. An exception of the body goes through,
    and the reading is of the time until it was raised.

    Args:
        device: auto adds up every GPU that CUDA shows, cuda:N takes that one, cpu leaves them out of the total.
        require_energy: refuse to begin where nothing can be measured.
        powercap: where RAPL's zones are.
        clock: seconds.
        sleep: how the thread that polls waits; by default until the body has ended, if that is sooner.

    Raises:
        UsageError: no such name of a device.
        MachineError: energy is required, and nothing can be measured.
    """
    ended = threading.Event()

    def rest(seconds: float) -> None:
        (time.sleep if ended.is_set() else ended.wait)(seconds)

    with _open(device, powercap, clock, sleep or rest) as meter, ThreadPoolExecutor(1, "power") as pool:
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
        raise UsageError(f"--device {device}: unknown. Choose auto, cpu or cuda[:N].")
    with open_sources(device, powercap=powercap) as inventory:
        yield EnergyMeter(inventory, clock, sleep)


def _require(meter: EnergyMeter, where: str) -> None:
    if not meter.tracks:
        raise _nothing(where, {name: reason for name, (reason, _) in meter.missing.items()})


def _nothing(where: str, reasons: dict[str, str]) -> MachineError:
    shown = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return MachineError(f"{where}: nothing can be measured here ({shown}). See toolchain doctor.")


def run(
    command: Sequence[str],
    *,
    device: str = "auto",
    require_energy: bool = False,
    stdout: int | None = None,
    powercap: Path = rapl.ROOT,
) -> Block:
    """Run a command as it would run by itself, and return its record, `exit_code` included.

    Its input, output and errors are ours, but for its output if `stdout` is another file's descriptor. Signals that
    would end us are handed on to it, and what it makes of them is waited for. An `exit_code` above 128 is that of a
    command which a signal of this number less 128 has ended.

    Raises:
        InputError: there is no such command, or it cannot be started.
        UsageError: no such name of a device.
        MachineError: energy is required, and nothing can be measured.
    """
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]}: no such command. Check its name, or give its path.")
    child: subprocess.Popen[bytes] | None = None

    def hand_on(number: int) -> None:
        if child is None:
            raise KeyboardInterrupt
        if number != signal.SIGINT or not _terminal_interrupts():
            child.send_signal(number)

    with _handled(hand_on), measure(device, require_energy=require_energy, powercap=powercap) as reading:
        child = _start(command, stdout)
        code = child.wait()
    return record(reading, command=command, exit_code=code if code >= 0 else 128 - code)


def _start(command: Sequence[str], stdout: int | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdout=stdout)  # noqa: S603  # the user's own command
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be started ({error.strerror}). Try it alone.") from error


def _terminal_interrupts() -> bool:
    """Whether Ctrl-C reaches the command without us, as it is in the terminal's foreground group."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Have signals that would end us handled; those that are ignored, as by nohup, stay so for the command too."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may
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
) -> Block:
    """Measure the machine for so long, or until a signal such as that of Ctrl-C; return the record.

    `draw` is called every second with the time since the start and the mean watts of that second.

    Raises:
        UsageError: no such name of a device.
        MachineError: nothing can be measured.
    """
    stopped: list[int] = []  # a signal's handler must not wait for a lock, so this is no Event
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


def record(reading: Reading, *, command: Sequence[str] | None = None, exit_code: int | None = None) -> Block:
    """Return a reading as a record to keep, with what it is of and where it was made."""
    here = describe()
    return {
        "schema": SCHEMA,
        "command": None if command is None else list(command),
        "exit_code": exit_code,
        **reading.to_json(),
        "environment": {key: here[key] for key in ENVIRONMENT},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def judge(found: Block) -> None:
    """Refuse a record without any joules, as --require-energy does; a command that failed has failed first.

    Raises:
        MachineError: nothing was measured.
    """
    if found["status"] == "unavailable" and not found["exit_code"]:
        raise _nothing("--require-energy", {name: one["reason"] for name, one in found["components"].items()})
