"""The contenders of an energy comparison: every bundle on every backend, each with its fastest batch size.

All of them are open at the same time.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Tokens, batches, batches_of
from toolchain.data.rows import Rows, load_rows
from toolchain.energy.evaluation import LOAD_ROWS
from toolchain.energy.load import Piece, pieces
from toolchain.errors import InputError, MachineError, UsageError, first_line
from toolchain.evaluation.measure import choose_budget
from toolchain.evaluation.stages import run_choices
from toolchain.evaluation.target import Target, find_target
from toolchain.recipe.options import RecipeValues
from toolchain.recipe.tables import BACKENDS
from toolchain.runtimes import open_runtime

Log = Callable[[str], None]

# Messages with which the libraries and engine/cuda.py report that memory ran out. Their exceptions have no common
# class.
OUT_OF_MEMORY = re.compile(r"out.?of.?memory|MemoryError|bad.?alloc|allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Contender:
    """A bundle on a backend, under a name that no other contender has."""

    name: str
    target: Target

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        assert self.target.bundle
        return self.target.bundle.path


@dataclass(frozen=True)
class Load:
    """An open runtime and the batches that it runs.

    `batch_slots`: largest number of positions in a batch, padded ones included; None if every batch is a single row.
    `prepare`: called before the warm-up and before each window.
    """

    infer: Infer
    work: list[Piece]
    batch_slots: int | None
    prepare: Callable[[], None] = lambda: None


def parse_backends(text: str) -> list[str]:
    """Return the names of the backends in a list such as torch,ort,trt.

    Raises:
        UsageError: a backend is unknown.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [name for name in names if name not in BACKENDS]:
        raise UsageError(f"--backend {text}: the backend {unknown[0]!r} is unknown. Choose from {', '.join(BACKENDS)}.")
    return names


def find_contenders(
    places: Sequence[Path], backends: Sequence[str], changes: RecipeValues, *, log: Log
) -> list[Contender]:
    """Return a contender for every bundle on every backend, the baseline first. `changes` are options as in a recipe.

    If two contenders would run the same file on the same device, only the first is returned. Bundles of one checkpoint
    do so with torch.

    Raises:
        UsageError: there are fewer than two contenders.
        ToolchainError: see target.find_target.
    """
    found: dict[tuple[object, ...], Target] = {}
    for place in places:
        for backend in backends:
            chosen = {
                key: value for key, value in changes.items() if key != "cuda_graphs" or BACKENDS[backend].cuda_graphs
            }
            target = find_target({**chosen, "backend": backend}, place, runs=True)
            same = (backend, target.device, target.precision, target.artefact["sha256"], target.resolved.max_length)
            if same in found:
                log(f"{place}: left out with {backend}, which would run the same file as for an earlier bundle")
            found.setdefault(same, target)
    if len(found) < 2:
        raise UsageError(
            "compare --energy: there is only one contender. Name another bundle, or backends: --backend torch,ort."
        )
    targets = list(found.values())
    return [Contender(_name(target, targets), target) for target in targets]


def _name(target: Target, targets: list[Target]) -> str:
    """Return the name of a contender: backend and variant, and also device and bundle if the targets differ in them."""
    name = f"{target.backend} {target.variant}"
    if len({one.device for one in targets}) > 1:
        name += f" on {target.device}"
    places = {one.bundle.path for one in targets if one.bundle}
    if len(places) == 1 or target.bundle is None:
        return name
    own = target.bundle.path
    alone = sum(place.resolve().name == own.resolve().name for place in places) == 1
    return f"{own.resolve().name if alone else own}: {name}"


def find_rows(contenders: Sequence[Contender], *, seed: int) -> Rows:
    """Return the rows that all contenders run: a random sample of the evaluated split.

    Raises:
        InputError: the bundles have different rows; or see load_rows.
    """
    found: dict[Path, Rows] = {}
    for contender in contenders:
        resolved = contender.target.resolved
        if contender.bundle not in found:
            found[contender.bundle] = load_rows(resolved.task, resolved.recipe.split, **resolved.recipe.reading)
    (first, rows), *others = found.items()
    for place, other in others:
        if other.texts != rows.texts:
            raise InputError(
                f"{place}: its rows are {other.source}, and those of {first} are {rows.source}. "
                "Give both the same rows with --data."
            )
    return rows.sample(LOAD_ROWS, seed=seed)


@contextmanager
def opened(
    contenders: Sequence[Contender], rows: Rows, *, single: bool, seed: int, log: Log
) -> Iterator[dict[str, Load]]:
    """Open the runtimes of all contenders at the same time, and yield the load of each by the contender's name.

    Args:
        contenders: the contenders.
        rows: rows that every contender runs.
        single: run single rows instead of batches, as a load with a fixed rate does.
        seed: seed of the search for the fastest batch size.
        log: called with each line of progress.

    Raises:
        MachineError: the contenders do not fit into memory together.
        ToolchainError: a contender cannot be opened.
    """
    tokens: dict[Path, Tokens] = {}
    loads: dict[str, Load] = {}
    with ExitStack() as stack:
        for contender in contenders:
            target, resolved = contender.target, contender.target.resolved
            log(f"opening {contender.name} on {target.device}")
            if contender.bundle not in tokens:
                tokens[contender.bundle] = resolved.encode(rows.texts)
            own = tokens[contender.bundle]
            with in_memory(contender.name, beside=list(loads)):
                infer = stack.enter_context(open_runtime(target.backend, target.model, **run_choices(target)))
                budget = None if single else choose_budget(infer, resolved.encode, rows.texts, seed=seed)
            plan = batches(own, max_slots=budget) if budget else batches_of(own, 1)
            loads[contender.name] = Load(infer, pieces(own, plan), budget)
        yield loads


@contextmanager
def in_memory(name: str, *, beside: list[str]) -> Iterator[None]:
    """Turn an out-of-memory error inside the context into a MachineError.

    The message names the contender and, from `beside`, the contenders that are open at the same time.

    Raises:
        MachineError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        first = first_line(error).rstrip(".")
        if not OUT_OF_MEMORY.search(f"{type(error).__name__}: {first}"):
            raise
        others = f" beside {', '.join(beside)}" if beside else ""
        raise MachineError(
            f"{name}: it does not fit into memory{others} ({first}). Compare fewer contenders, or free memory."
        ) from error
