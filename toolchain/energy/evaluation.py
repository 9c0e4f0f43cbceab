"""Energy as `eval` measures it: of one runtime on the rows it is evaluated on, before and after it is opened."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, budget_batches
from toolchain.data.rows import Text
from toolchain.energy.block import NOT_REQUESTED, Carbon, block, nothing, unavailable
from toolchain.energy.component import Block
from toolchain.energy.load import pieces
from toolchain.energy.protocol import Idle, Protocol, Run, idle, measure
from toolchain.errors import MachineError
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.meters.sources import BOARD, PACKAGE
from toolchain.recipe import Recipe
from toolchain.tensors import Infer

Tell = Callable[[str], None]

WINDOWS = 5
"""By default: as many as an interval needs."""

LOAD_ROWS = 4096
"""Rows that the load goes round: a seeded sample of more, since they are padded beforehand."""


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol that a recipe asks for."""
    return Protocol(
        window_s=recipe.energy_window,
        windows=recipe.energy_windows or WINDOWS,
        warmup_s=recipe.energy_warmup,
        rate=recipe.rate,
        seed=recipe.seed,
    )


@dataclass
class Session:
    """The energy of one evaluation; `meter` is None where it was not asked for."""

    recipe: Recipe
    device: str
    meter: EnergyMeter | None
    cold: Idle | None = None
    runs: dict[int | None, Run] = field(default_factory=dict)

    def measure(self, infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int, tell: Tell) -> None:
        """Measure batches of `max_slots` padded positions, or single rows at a fixed rate; then the sizes asked for.

        Raises:
            UsageError: the runtime does not keep the rate.
        """
        if self.meter is None or not self.meter.tracks:
            return
        tokens = encode(texts)
        lengths = tokens.lengths
        plans: dict[int | None, Iterable[Indices]] = {None: budget_batches(lengths, max_slots=max_slots)}
        if self.recipe.rate:
            plans = {None: batches_of(lengths, 1)}
        plans |= {size: batches_of(lengths, size) for size in self.recipe.batch_sizes}
        for size, batches in plans.items():
            if size:
                tell(f"energy: batches of {size}")
            made = pieces(tokens, batches)
            self.runs[size] = measure(infer, made, self.meter, protocol_of(self.recipe), tell=tell)
            self.runs[size].cold = self.cold

    def block(self, share_correct: float | None) -> Block:
        """Return the result's block; batches of the sizes asked for each have one in `by_batch_size`."""
        if self.meter is None:
            return unavailable(NOT_REQUESTED, device=self.device)
        if not self.runs:
            return nothing(self.meter, self.device)
        recipe = self.recipe
        carbon = Carbon(recipe.carbon_intensity, recipe.pue) if recipe.carbon_intensity is not None else None
        made = {
            size: block(
                run, self.meter, protocol_of(recipe), device=self.device, share_correct=share_correct, carbon=carbon
            )
            for size, run in self.runs.items()
        }
        return {**made.pop(None), "by_batch_size": [{"batch_size": size, **one} for size, one in made.items()]}


def batches_of(lengths: Indices, size: int) -> Iterator[Indices]:
    """Yield batches of `size` row indices, sorted by length; the last may be smaller."""
    order = np.argsort(-lengths, kind="stable")
    yield from (order[start : start + size] for start in range(0, len(order), size))


@contextmanager
def open_session(recipe: Recipe, device: str, *, tell: Tell) -> Iterator[Session]:
    """Yield the session of an evaluation on a device that nothing has been opened on yet.

    Raises:
        MachineError: energy is required, and the device's cannot be measured here.
    """
    if not recipe.wants_energy:
        yield Session(recipe, device, None)
        return
    with open_meter(device) as meter:
        if recipe.require_energy:
            require(nothing(meter, device) if device_component(device) not in meter.components else None)
        if meter.tracks:
            tell("energy: idle, with nothing loaded")
        yield Session(recipe, device, meter, idle(meter))


def device_component(device: str) -> str:
    """Return the component that a backend on this device cannot do without."""
    return PACKAGE if device == "cpu" else BOARD


def require(found: Block | None) -> None:
    """Refuse a block without figures.

    Raises:
        MachineError: with the reason.
    """
    if found is not None and found["status"] == "unavailable":
        raise MachineError(
            f"--require-energy: it cannot be measured here ({found['reason']}: {found['detail']}). "
            "See what this machine can read: toolchain doctor."
        )
