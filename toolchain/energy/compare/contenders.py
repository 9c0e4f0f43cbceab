"""Who competes for energy: every bundle on every backend, all opened together, each at its own best batches."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.checkpoint.tokenize import Tokens, budget_batches
from toolchain.data.rows import Rows, load_rows
from toolchain.energy.evaluation import LOAD_ROWS, batches_of
from toolchain.energy.load import Piece, pieces
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation.measure import choose_budget
from toolchain.evaluation.target import Target, find_target
from toolchain.recipe.tables import BACKENDS
from toolchain.runtimes import open_runtime
from toolchain.tensors import Infer

Tell = Callable[[str], None]

OUT_OF_MEMORY = re.compile(r"out.?of.?memory|MemoryError|bad.?alloc|allocate memory|no \d+ MB", re.IGNORECASE)
"""What the libraries say, and `cuda.py`; they have no common class for it."""


@dataclass(frozen=True)
class Contender:
    """A runtime on an artefact, under a name that tells it from the others."""

    name: str
    target: Target

    @property
    def bundle(self) -> Path:
        """Its bundle's folder."""
        assert self.target.bundle
        return self.target.bundle.path


@dataclass(frozen=True)
class Load:
    """An open runtime, and batches of the rows, of at most so many padded positions (None: single rows)."""

    infer: Infer
    work: list[Piece]
    batch_slots: int | None


def parse_backends(text: str) -> list[str]:
    """Return the backends that a list such as torch,ort,trt names.

    Raises:
        UsageError: one is unknown.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [name for name in names if name not in BACKENDS]:
        raise UsageError(f"--backend {text}: {unknown[0]!r} is unknown. Choose from {', '.join(BACKENDS)}.")
    return names


def find_contenders(
    places: Sequence[Path], backends: Sequence[str], changes: dict[str, Any], *, tell: Tell
) -> list[Contender]:
    """Return every bundle on every backend, the baseline first; what would run twice, as one checkpoint does, once.

    Raises:
        ToolchainError: see target.find_target; or there are not two.
    """
    found: dict[tuple[Any, ...], Target] = {}
    for place in places:
        for backend in backends:
            chosen = {
                key: value for key, value in changes.items() if key != "cuda_graphs" or BACKENDS[backend].cuda_graphs
            }
            target = find_target({**chosen, "backend": backend}, place)
            same = (backend, target.device, target.precision, target.artefact["sha256"], target.resolved.max_length)
            if same in found:
                tell(f"{place}: {backend} runs what it runs for an earlier bundle, so it competes once")
            found.setdefault(same, target)
    if len(found) < 2:
        raise UsageError(
            "compare --energy: there is one contender. Name another bundle, or backends such as --backend torch,ort."
        )
    targets = list(found.values())
    return [Contender(_name(target, targets), target) for target in targets]


def _name(target: Target, targets: list[Target]) -> str:
    """Return backend and variant, and the device and bundle where they tell contenders apart."""
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
    """Return the rows that all of them run: a sample of the split, the same for all.

    Raises:
        InputError: they are of different tasks or rows; or as load_rows.
    """
    found: dict[Path, Rows] = {}
    for contender in contenders:
        resolved = contender.target.resolved
        if contender.bundle not in found:
            found[contender.bundle] = load_rows(resolved.task, resolved.recipe.split, data=resolved.recipe.data)
    (first, rows), *others = found.items()
    for place, other in others:
        if other.texts != rows.texts:
            raise InputError(
                f"{place}: runs {other.source}, and {first} runs {rows.source}. Give both the same rows with --data."
            )
    return rows.sample(LOAD_ROWS, seed=seed)


@contextmanager
def opened(
    contenders: Sequence[Contender], rows: Rows, *, single: bool, seed: int, tell: Tell
) -> Iterator[dict[str, Load]]:
    """Yield all of them open at once, by name; `single`: rows one by one, as requests at a fixed rate come.

    Raises:
        MachineError: they do not fit into memory together.
        ToolchainError: one cannot be opened.
    """
    tokens: dict[Path, Tokens] = {}
    loads: dict[str, Load] = {}
    with ExitStack() as stack:
        for contender in contenders:
            target, resolved = contender.target, contender.target.resolved
            tell(f"opening {contender.name} on {target.device}")
            if contender.bundle not in tokens:
                tokens[contender.bundle] = resolved.encode(rows.texts)
            own = tokens[contender.bundle]
            with fitting(contender.name, beside=list(loads)):
                infer = stack.enter_context(open_runtime(target.backend, target.model, **target.choices))
                budget = None if single else choose_budget(infer, resolved.encode, rows.texts, seed=seed)
            batches = budget_batches(own.lengths, max_slots=budget) if budget else batches_of(own.lengths, 1)
            loads[contender.name] = Load(infer, pieces(own, batches), budget)
        yield loads


@contextmanager
def fitting(name: str, *, beside: list[str]) -> Iterator[None]:
    """Say plainly that it is memory that is short, if it is.

    Raises:
        MachineError: it is.
    """
    try:
        yield
    except Exception as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        if not OUT_OF_MEMORY.search(f"{type(error).__name__}: {first}"):
            raise
        others = f" beside {', '.join(beside)}" if beside else ""
        raise MachineError(
            f"{name}: does not fit into memory{others} ({first}). Compare fewer at once, or free memory."
        ) from error
