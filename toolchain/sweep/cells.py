"""The cells of a sweep: combinations of option values, without excluded ones and without duplicates.

Two combinations are duplicates if they differ only in options that have no effect.
"""

import dataclasses
import fnmatch
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from toolchain.base.files import sha256_json
from toolchain.errors import UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import CALIBRATION, ENGINE, MEASURED
from toolchain.recipe.tables import ATTENTIONS, BACKENDS, QUANTIZED
from toolchain.records.sweep import Option
from toolchain.sweep.study import Study, Values

Options = dict[str, Option]

# Returns what the result of a combination depends on besides its options, such as the digests of its files.
Depends = Callable[[Options], object]

# Number of characters of its key that a cell's name ends with, and most characters of the option values before them.
SHORT, LONGEST = 8, 60

# Options whose values come first in a cell's name, and options that are left out of the name.
FIRST, SILENT = ("precision", "backend", "task", "model"), ("data", "token_file")

# Options that both `build` and `eval` need. A build also needs a few options of MEASURED, see `of_build`.
OF_BOTH = ("seed", "allow_pickle", "trust_remote_code", "ignore_unused")

# Options that only INT8 and FP8 have.
OF_INT8 = (*CALIBRATION, "keep", "residual")


@dataclass(frozen=True)
class Cell:
    """One combination of option values.

    Attributes:
        options: name of an option in a recipe -> its value.
        key: digest of the options and of everything else that the result depends on (depends.py).
        name: name of the cell's folder: values of the options, and the first characters of the key.
        bundle: name of the bundle's folder: the precision, and a digest of the options of the build.
    """

    options: Options
    key: str
    name: str
    bundle: str


@dataclass(frozen=True)
class Grid:
    """The combinations of a study that run; `excluded` and `merged` count excluded ones and dropped duplicates."""

    combinations: list[Options]
    excluded: int
    merged: int


def expand(study: Study) -> Grid:
    """Return the combinations of a study that run, in the order of its file.

    Raises:
        UsageError: no combination is left, or an exclusion matches none.
    """
    every = [dict(zip(study.axes, values, strict=True)) for values in itertools.product(*study.axes.values())]
    for table in study.exclude:
        if not any(fits(table, one) for one in every):
            shown = ", ".join(f"{key} = {json.dumps(values)}" for key, values in table.items())
            raise UsageError(f"{study.name}: [[exclude]] {shown}: no cell has these values. Fix or remove this table.")
    left = [one for one in every if not any(fits(table, one) for table in study.exclude)]
    if not left:
        raise UsageError(f"{study.name}: the exclusions leave 0 of {len(every)} cells. Remove an [[exclude]] table.")
    different = list({json.dumps(one): one for one in map(effective, left)}.values())
    return Grid(different, len(every) - len(left), len(left) - len(different))


def fits(table: Values, options: Mapping[str, Option]) -> bool:
    """Return whether an exclusion matches a combination, which then has one of the listed values of each option."""
    return all(key in options and options[key] in values for key, values in table.items())


def effective(options: Options) -> Options:
    """Return a combination without the options that have no effect with its backend and precision.

    Options of engines are kept only for TensorRT's plans, implementations of attention only for torch, and options of
    INT8 and FP8 only for graphs and plans in these precisions. `{task}` in a value is replaced by the task's name.
    """
    backend = str(options.get("backend", "ort"))
    runs = BACKENDS[backend].runs if backend in BACKENDS else "graph"
    dropped: set[str] = set()
    if runs != "plan":
        dropped |= {*ENGINE, "target"}
    if runs == "checkpoint" and options.get("attention") in ATTENTIONS:
        dropped -= {"attention"}
    if runs == "checkpoint" or options.get("precision", "int8") not in QUANTIZED:
        dropped |= set(OF_INT8)
    if runs != "checkpoint":
        dropped |= {"compile"}
        if options.get("attention") in ATTENTIONS:
            dropped |= {"attention"}
    task = str(options.get("task", ""))
    return {
        key: value.replace("{task}", task) if isinstance(value, str) else value
        for key, value in options.items()
        if key not in dropped
    }


def of_build(options: Options) -> Options:
    """Return the options of a combination that its build needs. Combinations with equal build options share a bundle.

    PyTorch runs the checkpoint, so it uses the bundle in FP32.
    """
    backend = str(options.get("backend", "ort"))
    runs = BACKENDS[backend].runs if backend in BACKENDS else "graph"
    kept = {key: value for key, value in options.items() if key not in MEASURED}
    kept |= {"precision": "fp32"} if runs == "checkpoint" else _given(options, "precision")
    if runs == "plan":
        return {**kept, "backend": backend, **_given(options, "attention"), **_given(options, "device")}
    return {**kept, "backend": "ort"}


def of_eval(options: Options) -> Options:
    """Return the options of a combination that its evaluation needs."""
    backend = str(options.get("backend", "ort"))
    plan = backend in BACKENDS and BACKENDS[backend].runs == "plan"
    kept = {*MEASURED, *OF_BOTH} - ({"attention"} if plan else set())
    return {key: value for key, value in options.items() if key in kept}


def _given(options: Options, key: str) -> Options:
    return {key: options[key]} if key in options else {}


def make_cells(combinations: Iterable[Options], depends: Depends) -> list[Cell]:
    """Return a cell for each combination. The name and the key of a cell do not depend on the other cells."""
    found = []
    for one in combinations:
        key, build = sha256_json([one, depends(one)]), of_build(one)
        bundle = f"{build.get('precision', 'default')}-{sha256_json([build, depends(build)])[:SHORT]}"
        found.append(Cell(one, key, f"{_words(one)}-{key[:SHORT]}", bundle))
    return found


def _words(options: Options) -> str:
    """Return the values of options as part of a file name; the options that usually differ come first."""
    order = dict.fromkeys([*FIRST, *(field.name for field in dataclasses.fields(Recipe))])
    shown = [_word(key, options[key]) for key in order if options.get(key) not in (None, False) and key not in SILENT]
    return "-".join(shown)[:LONGEST].strip("-.") or "default"


def _word(key: str, value: Option) -> str:
    if value is True:
        return key
    text = str(value).rstrip("/").rpartition("/")[2] if isinstance(value, str) else f"{key}{value}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text) or key


def chosen(cells: list[Cell], pattern: str | None) -> list[Cell]:
    """Return the cells whose names match a pattern such as 'int8*'; all cells if the pattern is None.

    Raises:
        UsageError: no name matches.
    """
    found = [one for one in cells if pattern is None or fnmatch.fnmatchcase(one.name, pattern)]
    if not found:
        raise UsageError(
            f"--only {pattern}: no cell has such a name. The first is {cells[0].name}; --dry-run lists all names."
        )
    return found
