"""The meter of peak memory.

On the host, it reads the kernel's high-water mark of this process; on a GPU, it samples the memory of this process.
"""

import threading
from contextlib import ExitStack
from pathlib import Path

from toolchain.meters.gpu_state import own_memory_mb
from toolchain.meters.nvml import Device, Unavailable, open_nvml, visible_device
from toolchain.records.result import PeakMemoryMb

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # resets the peak resident set size to the current one, see proc(5)

# Interval in seconds between samples of the GPU's memory. A shorter peak can be missed, but this is rare, because
# runtimes allocate memory from pools that do not shrink.
SAMPLE_S = 0.05

METHOD = "nvml_samples"
NO_DEVICE_USED = "no_device_used"


class MemoryMeter:
    """Measures the peak memory of this process in MB (10^6 bytes): resident on the host, and allocated on a GPU."""

    def __init__(self, device: str = "cpu") -> None:
        """Measure the memory of work on `device`: cpu or cuda[:N]."""
        self._number = None if device == "cpu" else int(device.partition(":")[2] or 0)
        self._gpu: Device | None = None
        self._peak_mb: float | None = None
        self._reason: str | None = NO_DEVICE_USED
        self._session, self._over = ExitStack(), threading.Event()

    def start(self) -> None:
        """Reset the kernel's high-water mark, and start sampling the GPU's memory in a thread.

        The host's peak starts at the memory that is resident now, including freed memory that the allocator keeps. If
        the system does not allow the reset, the peak is the one since the process began.
        """
        if self._number is not None:
            self._open(self._number)
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            return

    def stop(self) -> PeakMemoryMb:
        """Stop sampling and return the peaks in MB. A peak that was not measured is None.

        If it is the GPU's peak, the result has the reason.
        """
        self.sample()
        self._over.set()
        self._session.close()
        method = METHOD if self._peak_mb is not None else None
        reason = self._reason if method is None else None
        return {"host": _peak_mb(), "device": self._peak_mb, "device_method": method, "device_reason": reason}

    def sample(self) -> None:
        """Read this process's memory on the GPU once, and update the peak; if it cannot be read, store the reason."""
        if self._gpu is None:
            return
        try:
            self._peak_mb = max(self._peak_mb or 0.0, own_memory_mb(self._gpu))
        except Unavailable as why:
            self._reason = why.reason

    def _open(self, number: int) -> None:
        try:
            self._session.enter_context(open_nvml())
            self._gpu = visible_device(number)
        except Unavailable as why:
            self._reason = why.reason
            return
        thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        thread.start()
        self._session.callback(thread.join)

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.sample()


def _peak_mb() -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    return None if kib is None else kib * 1024 / 1e6
