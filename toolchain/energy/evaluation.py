"""Measure the energy of one runtime on the rows of `eval`, and idle power before and after the runtime is opened."""

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

# Default number of windows: the smallest number for which a confidence interval is computed.
WINDOWS = 5

# Largest number of rows in the load. They are padded beforehand and stay in memory, so a larger set is sampled.
LOAD_ROWS = 4096


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the measurement protocol that a recipe asks for."""
    return Protocol(
        window_s=recipe.energy_window,
        windows=recipe.energy_windows or WINDOWS,
        warmup_s=recipe.energy_warmup,
        rate=recipe.rate,
        seed=recipe.seed,
    )


@dataclass
class Session:
    """The energy measurement of one evaluation; `meter` is None if energy was not requested."""

    recipe: Recipe
    device: str
    meter: EnergyMeter | None
    cold: Idle | None = None
    runs: dict[int | None, Run] = field(default_factory=dict)

    def measure(self, infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int, log: Log) -> None:
        """Measure the energy of the runtime on `texts`.

        The first run has batches of at most `max_slots` positions, or single rows if the recipe has a fixed rate. One
        run for each batch size of the recipe follows. `log` is called with each line of progress.

        Raises:
            UsageError: the runtime does not reach the fixed rate.
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
        """Return the energy block of the result; its `by_batch_size` has a block for each batch size of the recipe.

        `share_correct` is the fraction of rows, 0 to 1, that were predicted correctly; None for a regression.
        """
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
    """Yield the session of an evaluation. Enter it before the runtime is opened, because it measures idle power first.

    Raises:
        MachineError: energy is required, and the energy of the device cannot be measured.
    """
    if not recipe.wants_energy:
        yield Session(recipe, device, None)
        return
    with open_meter(device) as meter:
        if recipe.require_energy and lacking(device, meter):
            require(not_measurable(meter, device))
        if meter.readings:
            log("energy: measuring idle power with nothing loaded")
        yield Session(recipe, device, meter, idle(meter))


def require(found: EnergyBlock) -> None:
    """Check for --require-energy that energy was measured.

    Raises:
        MachineError: the block has no figures.
    """
    if found["status"] == "unavailable":
        raise required(str(found["reason"]), str(found["detail"]))


def required(reason: str, detail: str) -> MachineError:
    """Return the error of --require-energy for energy that was not measured, from a reason code and its details."""
    return MachineError(
        f"--require-energy: this machine cannot measure the energy ({reason}: {detail}). "
        "`toolchain doctor` shows which sensors it can read."
    )
