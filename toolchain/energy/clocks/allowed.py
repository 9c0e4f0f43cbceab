"""Whether the clocks of a GPU may be set here: what forbids it, with the ways out, and what a user needs to know."""

from toolchain.errors import MachineError
from toolchain.meters import gpu_state
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.settings import is_administrator, is_virtual
from toolchain.records.clocks import Hindrance

NO_RIGHT, MIG, VIRTUAL = "no_right", "mig", "virtual_gpu"
SHARED, UNSEEN, NO_ENERGY = "other_processes", "processes_unknown", "no_energy"

NO_PERSISTENCE = (
    "persistence mode is off: the driver forgets a lock when the last program on the GPU ends. "
    "To keep a clock, turn it on first: nvidia-smi -pm 1"
)

NO_LOCK = (
    "the driver does not report whether the clock is locked. If it is, give the lock with --locked: it is put back at "
    "the end. Otherwise the clock is unlocked at the end"
)

FIRST_PROCESS = (
    "this command is the first process of its container, whose end also ends the guardian: SIGKILL leaves the clock "
    "as it is at that moment. End the command with Ctrl-C or `docker stop`, or start it with `docker exec`"
)


def hindrances(device: Device) -> list[Hindrance]:
    """Return everything that forbids setting the clocks of a GPU that this process does not use yet."""
    found = []
    if not is_administrator():
        found.append(
            _hindrance(
                NO_RIGHT,
                "only an administrator (CAP_SYS_ADMIN) may set its clocks",
                "Run the command with sudo, or in a container with --cap-add SYS_ADMIN; or let an administrator lock "
                "one clock after the other with nvidia-smi -lgc, and measure each with toolchain eval --energy",
            )
        )
    if gpu_state.describe(device)["mig"] is not False:
        found.append(
            _hindrance(
                MIG,
                "it is divided into slices (MIG), and a clock is set for all of them",
                f"Turn MIG off with nvidia-smi -i {device.index} -mig 0, or choose another GPU with --device",
            )
        )
    if is_virtual(device):
        found.append(
            _hindrance(
                VIRTUAL,
                "virtual machines share it (vGPU), and a clock is set for all of them",
                "Run on a machine without vGPU, or pass the whole GPU to this one",
            )
        )
    return [*found, *_sharing(device)]


def _sharing(device: Device) -> list[Hindrance]:
    pids = gpu_state.process_ids(device)
    if pids is None:
        what, ways = "the driver does not say which processes use it", "Run on the host, or choose another GPU"
        return [_hindrance(UNSEEN, what, f"{ways} with --device")]
    if not pids:
        return []
    shown = ", ".join(map(str, sorted(pids)))
    what = f"other processes compute on it ({shown}), and a clock is set for them too"
    return [_hindrance(SHARED, what, "Wait until they have ended, or choose another GPU with --device")]


def not_measurable(why: str) -> Hindrance:
    """Return the hindrance of a GPU whose energy cannot be measured, for the reason in words."""
    return _hindrance(NO_ENERGY, f"its energy cannot be measured ({why})", "See toolchain doctor")


def _hindrance(code: str, text: str, advice: str) -> Hindrance:
    return {"code": code, "text": text, "advice": advice}


def require(device: Device, found: list[Hindrance]) -> None:
    """Refuse to set the clocks of a GPU.

    Raises:
        MachineError: something forbids it; the message has the first reason and its ways out.
    """
    if found:
        raise MachineError(f"{device.name}: {found[0]['text']}. {found[0]['advice']}.")


class Watch:
    """The processes on a GPU from the moment that this one uses it: none may come while its clocks are set.

    In a container the driver may report this process by another number, so its own is the one that is there at first.
    """

    def __init__(self, device: Device) -> None:
        """Take the process that is there.

        Raises:
            MachineError: there are several, so another one has come since `hindrances` saw none.
        """
        self._device = device
        self._own = gpu_state.process_ids(device) or set()
        if len(self._own) > 1:
            require(device, _sharing(device))

    def check(self) -> None:
        """Refuse to go on beside another process.

        Raises:
            MachineError: another process has come, or the GPU is lost.
        """
        try:
            came = (gpu_state.process_ids(self._device) or set()) - self._own
        except Unavailable as why:
            raise MachineError(
                f"{self._device.name}: it cannot be read any more ({why.reason}). Check the GPU."
            ) from why
        if came:
            raise MachineError(
                f"{self._device.name}: another process began to use it ({', '.join(map(str, sorted(came)))}), so its "
                "clocks were put back. Wait until it has ended, or choose another GPU with --device."
            )
