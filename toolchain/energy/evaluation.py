"""Energy of an evaluation: one runtime on the rows that `eval` runs, with idle power before and after it is opened."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from toolchain.base.tensors import Infer
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, batches, batches_of
from toolchain.data.rows import Text
from toolchain.energy.components import lacking
from toolchain.energy.load import pieces
from toolchain.energy.protocol import Idle, Protocol, Run, idle, measure
from toolchain.energy.record import NOT_REQUESTED, Carbon, block, not_measurable, unavailable
from toolchain.errors import MachineError
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.recipe import Recipe
from toolchain.records.energy import BatchSizeEnergy, EnergyBlock

Log = Callable[[str], None]

# Default number of windows: the least for an interval.
WINDOWS = 5

# Most rows of the load. They are padded beforehand and stay in memory, so a larger set is sampled.
LOAD_ROWS = 4096


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol of a recipe."""
    return Protocol(
        window_s=recipe.energy_window,
        windows=recipe.energy_windows or WINDOWS,
        warmup_s=recipe.energy_warmup,
        rate=recipe.rate,
        seed=recipe.seed,
    )


@dataclass
class Session:
    """The energy of one evaluation; `meter` is None where energy was not requested."""

    recipe: Recipe
    device: str
    meter: EnergyMeter | None
    cold: Idle | None = None
    runs: dict[int | None, Run] = field(default_factory=dict)

    def measure(self, infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int, log: Log) -> None:
        """Measure the runtime, first in batches of at most `max_slots` positions or in single rows at the fixed rate.

        The batch sizes of the recipe follow. `log` takes a line of progress.

        Raises:
            UsageError: the runtime does not reach the rate.
        """
        if self.meter is None or not self.meter.readings:
            return
        tokens = encode(texts)
        plans: dict[int | None, Iterable[Indices]] = {None: batches(tokens, max_slots=max_slots)}
        if self.recipe.rate:
            plans = {None: batches_of(tokens, 1)}
        plans |= {size: batches_of(tokens, size) for size in self.recipe.batch_sizes}
        for size, plan in plans.items():
            if size:
                log(f"energy: batches of {size}")
            made = pieces(tokens, plan)
            self.runs[size] = measure(infer, made, self.meter, protocol_of(self.recipe), log=log)
            self.runs[size].cold = self.cold

    def block(self, share_correct: float | None) -> EnergyBlock:
        """Return the block of the result; each requested batch size has one in `by_batch_size`."""
        if self.meter is None:
            return unavailable(NOT_REQUESTED, device=self.device)
        if not self.runs:
            return not_measurable(self.meter, self.device)
        recipe = self.recipe
        carbon = Carbon(recipe.carbon_intensity, recipe.pue) if recipe.carbon_intensity is not None else None
        made = {
            size: block(
                run, self.meter, protocol_of(recipe), device=self.device, share_correct=share_correct, carbon=carbon
            )
            for size, run in self.runs.items()
        }
        first = made.pop(None)
        first["by_batch_size"] = [BatchSizeEnergy(batch_size=size or 0, **one) for size, one in made.items()]
        return first


@contextmanager
def open_session(recipe: Recipe, device: str, *, log: Log) -> Iterator[Session]:
    """Yield the session of an evaluation; call it before anything is opened on the device.

    Raises:
        MachineError: energy is required, and that of the device cannot be measured.
    """
    if not recipe.wants_energy:
        yield Session(recipe, device, None)
        return
    with open_meter(device) as meter:
        if recipe.require_energy and lacking(device, meter):
            require(not_measurable(meter, device))
        if meter.readings:
            log("energy: idle, with nothing loaded")
        yield Session(recipe, device, meter, idle(meter))


def require(found: EnergyBlock) -> None:
    """Apply --require-energy to a block.

    Raises:
        MachineError: the block lacks figures.
    """
    if found["status"] == "unavailable":
        raise required(str(found["reason"]), str(found["detail"]))


def required(reason: str, detail: str) -> MachineError:
    """Return the error of --require-energy, from the code of a reason and its words."""
    return MachineError(
        f"--require-energy: this machine cannot measure the energy ({reason}: {detail}). "
        "See what it can read: `toolchain doctor`."
    )
