"""The cells of a sweep: combinations of options, without those that are excluded or have the effect of another."""

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

# What a combination depends on besides its options, such as the digests of its files.
Depends = Callable[[Options], object]

# Characters of a key in a name, and of the values before them.
SHORT, LONGEST = 8, 60

# Options whose values come first in a name, and those that are left out of it.
FIRST, SILENT = ("precision", "backend", "task", "model"), ("data", "token_file")

# Options of both commands, besides those that MEASURED and a build share.
OF_BOTH = ("seed", "allow_pickle", "trust_remote_code", "ignore_unused")

# Options of INT8 and FP8 alone.
OF_INT8 = (*CALIBRATION, "keep", "residual")


@dataclass(frozen=True)
class Cell:
    """One combination of options.

    Attributes:
        options: by their names in a recipe.
        key: digest of the options and of all else that the result depends on.
        name: values of the options, and the first characters of the key.
        bundle: name of its bundle: the precision, and a digest of the options of the build.
    """

    options: Options
    key: str
    name: str
    bundle: str


@dataclass(frozen=True)
class Grid:
    """The combinations of a study that are left, and how many were left out."""

    combinations: list[Options]
    excluded: int
    merged: int


def expand(study: Study) -> Grid:
    """Return the combinations of a study in the order of its file.

    Raises:
        UsageError: none is left, or an exclusion fits no combination.
    """
    every = [dict(zip(study.axes, values, strict=True)) for values in itertools.product(*study.axes.values())]
    for table in study.exclude:
        if not any(fits(table, one) for one in every):
            shown = ", ".join(f"{key} = {json.dumps(values)}" for key, values in table.items())
            raise UsageError(f"{study.name}: [[exclude]] {shown}: no cell has these values. Fix it, or take it out.")
    left = [one for one in every if not any(fits(table, one) for table in study.exclude)]
    if not left:
        raise UsageError(f"{study.name}: 0 of {len(every)} cells are left after exclusion. Exclude less.")
    different = list({json.dumps(one): one for one in map(effective, left)}.values())
    return Grid(different, len(every) - len(left), len(left) - len(different))


def fits(table: Values, options: Mapping[str, Option]) -> bool:
    """Return whether a combination has one of the values of each option of an exclusion."""
    return all(key in options and options[key] in values for key, values in table.items())


def effective(options: Options) -> Options:
    """Return a combination without the options that have no effect with its backend and precision, `{task}` filled in.

    Options of an engine are kept for TensorRT's plans, implementations of attention for torch, and those of INT8 and
    FP8 for graphs and plans in them.
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
    """Return the options of the build of a combination's bundle; those with the same share one.

    PyTorch runs the checkpoint, so its bundle is that of FP32.
    """
    backend = str(options.get("backend", "ort"))
    runs = BACKENDS[backend].runs if backend in BACKENDS else "graph"
    kept = {key: value for key, value in options.items() if key not in MEASURED}
    kept |= {"precision": "fp32"} if runs == "checkpoint" else _given(options, "precision")
    if runs == "plan":
        return {**kept, "backend": backend, **_given(options, "attention"), **_given(options, "device")}
    return {**kept, "backend": "ort"}


def of_eval(options: Options) -> Options:
    """Return the options of the evaluation of a combination's bundle."""
    backend = str(options.get("backend", "ort"))
    plan = backend in BACKENDS and BACKENDS[backend].runs == "plan"
    kept = {*MEASURED, *OF_BOTH} - ({"attention"} if plan else set())
    return {key: value for key, value in options.items() if key in kept}


def _given(options: Options, key: str) -> Options:
    return {key: options[key]} if key in options else {}


def make_cells(combinations: Iterable[Options], depends: Depends) -> list[Cell]:
    """Return the cells of combinations. Names and keys of a cell do not depend on the other cells."""
    found = []
    for one in combinations:
        key, build = sha256_json([one, depends(one)]), of_build(one)
        bundle = f"{build.get('precision', 'default')}-{sha256_json([build, depends(build)])[:SHORT]}"
        found.append(Cell(one, key, f"{_words(one)}-{key[:SHORT]}", bundle))
    return found


def _words(options: Options) -> str:
    """Return the values of options in characters for a file's name: first what differs most often between cells."""
    order = dict.fromkeys([*FIRST, *(field.name for field in dataclasses.fields(Recipe))])
    shown = [_word(key, options[key]) for key in order if options.get(key) not in (None, False) and key not in SILENT]
    return "-".join(shown)[:LONGEST].strip("-.") or "default"


def _word(key: str, value: Option) -> str:
    if value is True:
        return key
    text = str(value).rstrip("/").rpartition("/")[2] if isinstance(value, str) else f"{key}{value}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text) or key


def chosen(cells: list[Cell], pattern: str | None) -> list[Cell]:
    """Return the cells whose names fit a pattern such as 'int8*'; all without one.

    Raises:
        UsageError: none fits.
    """
    found = [one for one in cells if pattern is None or fnmatch.fnmatchcase(one.name, pattern)]
    if not found:
        raise UsageError(f"--only {pattern}: no cell has such a name; the first is {cells[0].name}. See --dry-run.")
    return found
