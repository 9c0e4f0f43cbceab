"""The guardian: a process that puts the settings of a GPU back when its parent ends, even if the parent was killed.

`guarded` starts the guardian before it changes any setting. The guardian waits until the pipe from its parent closes,
and then puts the settings back. The parent does so only if the guardian was killed. The command line is

    python -m toolchain.meters.guardian UUID LIMIT_MW LOW_MHZ HIGH_MHZ

with 0 for LIMIT_MW if there is no power limit to put back, and 0 for both clocks if the clock was not locked.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from toolchain.errors import MachineError
from toolchain.meters.nvml import Device, Unavailable, all_devices, open_nvml
from toolchain.meters.settings import Settings, change, put_back, read_settings

# Signals that a terminal or a service manager may send to the guardian together with its parent. The guardian ignores
# them, so that it can still put the settings back.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# The line that the guardian writes to its parent when it is able to put the settings back.
READY = "ready"

# Longest wait in seconds for the guardian to put the settings back. It sets two values, which takes far less time.
LIMIT_S = 30.0

# Longest wait in seconds for the guardian to start. It imports NVML and finds its GPU, which takes less time even on a
# busy machine.
START_S = 60.0


@dataclass
class Guarded:
    """A GPU whose settings are put back when `guarded` ends.

    Attributes:
        device: the GPU.
        first: the settings to put back.
        process: the guardian process.
        touched: whether a setting may have been changed.
        after: the settings as read after they were put back; None before that, or if they could not be read.
    """

    device: Device
    first: Settings
    process: "subprocess.Popen[str]"
    touched: bool = False
    after: Settings | None = None

    def change(self, settings: Settings) -> None:
        """Change the settings of the GPU.

        Raises:
            MachineError: NVML refused the change, or the guardian has ended.
        """
        if self.process.poll() is not None:
            raise MachineError(
                f"{self.device.name}: the process that puts its clocks back has ended, so they are not changed. "
                "Run the command again, and do not kill that process."
            )
        try:
            change(self.device, settings)
        except Unavailable as why:
            self.touched |= why.reason != "no_permission"
            raise MachineError(
                f"{self.device.name}: NVML refused to set its clock or power limit ({why.reason}). "
                "Run as an administrator, on a GPU whose clocks can be locked."
            ) from why
        self.touched = True


@contextmanager
def guarded(device: Device, first: Settings) -> Iterator[Guarded]:
    """Yield the GPU so that its settings can be changed; put `first` back at the end, however this process ends.

    Until then, SIGTERM raises KeyboardInterrupt in the main thread, as Ctrl-C does, so that this process waits until
    the settings are back. If it is the first process of a container, its end also ends the guardian.

    Raises:
        MachineError: the guardian cannot start, or the settings could not be put back.
    """
    low, high = first.locked_mhz or (0, 0)
    words = [device.uuid, str(first.power_limit_mw or 0), str(low), str(high)]
    process = subprocess.Popen(  # noqa: S603  # our own program, without a shell
        [sys.executable, "-m", "toolchain.meters.guardian", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that Ctrl-C in the terminal reaches only this process
    )
    found = Guarded(device, first, process)
    with process, _interrupted_by_sigterm():
        assert process.stdout
        spoken, _, _ = select.select([process.stdout], [], [], START_S)
        if not spoken or process.stdout.readline().strip() != READY:
            process.kill()
            raise MachineError(
                f"{device.name}: the process that puts its clocks back did not start, so they are unchanged. Try again."
            )
        try:
            yield found
        finally:
            fault = _end(found)
            if fault and found.touched:
                raise MachineError(
                    f"{device.name}: {fault}. Put the settings back by hand: {' && '.join(commands(found))}"
                )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(found: Guarded) -> str | None:
    """Close the pipe and wait for the guardian. If it was killed or hangs, put the settings back here.

    Return why the settings could not be put back, or None if they were.
    """
    try:
        out, _ = found.process.communicate(timeout=LIMIT_S)
        fault: str | None = json.loads(out)["fault"]
    except (ValueError, subprocess.TimeoutExpired, OSError):  # the guardian was killed, or it hangs
        found.process.kill()
        fault = put_back(found.device, found.first)
    with suppress(Unavailable):
        found.after = read_settings(found.device, found.first.locked_mhz)
    return fault and f"its clock or power limit could not be put back ({fault})"


def commands(found: Guarded) -> list[str]:
    """Return the nvidia-smi commands that put the first settings of the GPU back."""
    return nvidia_smi(found.device.uuid, found.first, reset=True)


def nvidia_smi(uuid: str, settings: Settings, *, reset: bool = False) -> list[str]:
    """Return the nvidia-smi commands that give a GPU these settings.

    For settings without a clock lock, `reset` adds the command that unlocks the clock.
    """
    lines = []
    if settings.locked_mhz:
        lines.append(f"nvidia-smi -i {uuid} -lgc {settings.locked_mhz[0]},{settings.locked_mhz[1]}")
    elif reset:
        lines.append(f"nvidia-smi -i {uuid} -rgc")
    if settings.power_limit_mw:
        lines.append(f"nvidia-smi -i {uuid} -pl {settings.power_limit_mw / 1000:g}")
    return lines


def guard(words: list[str], wait: Callable[[], object] = sys.stdin.read) -> str | None:
    """Put settings back once `wait` has returned; return why that failed, or None if it succeeded.

    `words` are the arguments of the command line: the UUID of the GPU, and its settings.
    """
    uuid, limit, low, high = words[0], *map(int, words[1:])
    first = Settings((low, high) if high else None, limit or None)
    with open_nvml():
        device = next((one for one in all_devices() if one.uuid == uuid), None)
        if device is None:
            return f"this machine has no GPU {uuid}"
        os.write(1, f"{READY}\n".encode())
        wait()
        return put_back(device, first)


def main() -> None:
    """Wait until standard input ends, then put back the settings that the command line gives."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        fault = guard(sys.argv[1:])
    except Unavailable as why:
        fault = str(why)
    with suppress(BrokenPipeError):  # a killed parent no longer reads the pipe
        os.write(1, json.dumps({"fault": fault}).encode())
    sys.exit(fault is not None)


if __name__ == "__main__":
    main()
