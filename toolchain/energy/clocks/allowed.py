"""Check whether the clocks of a GPU may be set on this machine.

A hindrance is a reason why they may not be set, with advice. The notes are what a user should know before setting a
clock.
"""

from toolchain.errors import MachineError
from toolchain.meters import gpu_state
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.settings import is_administrator, is_virtual
from toolchain.records.clocks import Hindrance

NO_RIGHT, MIG, VIRTUAL = "no_right", "mig", "virtual_gpu"
SHARED, UNSEEN, NO_ENERGY = "other_processes", "processes_unknown", "no_energy"

NO_PERSISTENCE = (
    "persistence mode is off: the driver forgets a clock lock when the last program on the GPU ends. "
    "To keep a lock, turn persistence mode on first: nvidia-smi -pm 1"
)

NO_LOCK = (
    "the driver does not report whether the clock is locked. If it is, give the lock with --locked, and it is restored "
    "at the end. Without --locked, the clock is unlocked at the end"
)

FIRST_PROCESS = (
    "this command is the first process of its container, so SIGKILL also ends the guardian process that would restore "
    "the clock. End the command with Ctrl-C or `docker stop`, or start it with `docker exec`"
)


def hindrances(device: Device) -> list[Hindrance]:
    """Return all hindrances to setting the clocks of a GPU; call it before this process uses the GPU."""
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
                "it is divided into slices (MIG), and a clock can only be set for all of them together",
                f"Turn MIG off with nvidia-smi -i {device.index} -mig 0, or choose another GPU with --device",
            )
        )
    if is_virtual(device):
        found.append(
            _hindrance(
                VIRTUAL,
                "virtual machines share it (vGPU), and a clock can only be set for all of them together",
                "Run on a machine without vGPU, or pass the whole GPU to this one",
            )
        )
    return [*found, *_sharing(device)]


def _sharing(device: Device) -> list[Hindrance]:
    pids = gpu_state.process_ids(device)
    if pids is None:
        what, ways = "the driver does not report which processes use it", "Run on the host, or choose another GPU"
        return [_hindrance(UNSEEN, what, f"{ways} with --device")]
    if not pids:
        return []
    shown = ", ".join(map(str, sorted(pids)))
    what = f"other processes use it ({shown}), and a new clock would affect them too"
    return [_hindrance(SHARED, what, "Wait until they have ended, or choose another GPU with --device")]


def not_measurable(why: str) -> Hindrance:
    """Return the hindrance for a GPU whose energy cannot be measured; `why` is the reason in words."""
    return _hindrance(NO_ENERGY, f"its energy cannot be measured ({why})", "See toolchain doctor")


def _hindrance(code: str, text: str, advice: str) -> Hindrance:
    return {"code": code, "text": text, "advice": advice}


def require(device: Device, found: list[Hindrance]) -> None:
    """Check that there are no hindrances to setting the clocks of a GPU; `found` lists them.

    Raises:
        MachineError: there is a hindrance; the message has the first one and its advice.
    """
    if found:
        raise MachineError(f"{device.name}: {found[0]['text']}. {found[0]['advice']}.")


class Watch:
    """Watches for other processes that start to use a GPU while its clocks are set.

    In a container the driver may report this process under another id. The process that is on the GPU at the start is
    therefore taken to be this one.
    """

    def __init__(self, device: Device) -> None:
        """Read the id of the process on the GPU, which is this one.

        Raises:
            MachineError: several processes use the GPU, so another one has started since `hindrances` was called.
        """
        self._device = device
        self._own = gpu_state.process_ids(device) or set()
        if len(self._own) > 1:
            require(device, _sharing(device))

    def check(self) -> None:
        """Check that this is still the only process on the GPU.

        Raises:
            MachineError: another process uses the GPU, or NVML can no longer read the GPU.
        """
        try:
            came = (gpu_state.process_ids(self._device) or set()) - self._own
        except Unavailable as why:
            raise MachineError(
                f"{self._device.name}: NVML can no longer read it ({why.reason}). Check the GPU with nvidia-smi."
            ) from why
        if came:
            raise MachineError(
                f"{self._device.name}: another process began to use it ({', '.join(map(str, sorted(came)))}), so its "
                "clocks were restored. Wait until that process has ended, or choose another GPU with --device."
            )
