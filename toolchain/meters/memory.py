"""Peak memory of a window, from the kernel's own high-water mark."""

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): reset the peak resident set size to its current value


class MemoryMeter:
    """Peak resident memory of this process in MB (10^6 bytes); device memory is not measured yet."""

    def start(self) -> None:
        """Reset the kernel's mark; where that is not allowed, the peak is that of the process."""
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            return

    def stop(self) -> dict[str, float | None]:
        """Return {"host": MB or null, "device": null}."""
        return {"host": _peak_mb(), "device": None}


def _peak_mb() -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    return None if kib is None else kib * 1024 / 1e6
