"""The file of a sweep: a recipe in which an option may have several values.

    objectives = ["latency", "size"]     # costs of the Pareto fronts
    model = "demo"                       # one value: all cells have it
    precision = ["fp32", "int8"]         # a list: an axis of the grid
    backend = ["torch", "ort"]

    [[exclude]]                          # leave out the cells that have all of these values
    backend = "torch"
    precision = "int8"

`{task}` in a text is replaced by the name of the cell's task.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import UsageError, meant
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues, check, load_recipe, toml_value
from toolchain.records.sweep import Option
from toolchain.report.costs import COSTS

# A sweep with more cells than this needs --yes. At ten seconds per cell, 1,000 cells take about three hours.
MANY_CELLS = 1000

# Options that the sweep sets itself, so a study cannot give them.
OWN = ("output", "dry_run", "force", "reuse", "trust")

# For a grid: axis -> its values. For an exclusion: option -> the values that it excludes.
Values = dict[str, list[Option]]


@dataclass(frozen=True)
class Study:
    """The grid of a sweep.

    Attributes:
        name: name of the sweep's file, without its suffix.
        objectives: costs of the Pareto fronts; empty for the default ones.
        axes: option -> its values.
        exclude: exclusions: a cell is left out if it has one of the listed values for each option of one of them.
    """

    name: str
    objectives: tuple[str, ...]
    axes: Values
    exclude: tuple[Values, ...]

    @property
    def combinations(self) -> int:
        """Number of cells before any are excluded."""
        return math.prod(map(len, self.axes.values()))


def read_study(file: Path, sets: list[str], *, yes: bool = False) -> Study:
    """Read the file of a sweep, and return its grid; `sets` are assignments KEY=VALUE that change its options.

    Raises:
        InputError: the file cannot be read as TOML.
        UsageError: a key is unknown, a value is not allowed, or there are more than MANY_CELLS cells without `yes`.
    """
    values = load_recipe(file)
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: the assignment has no '='. Write --set KEY=VALUE.")
        values[key.strip().replace("-", "_")] = toml_value(text.strip())
    if not values:
        raise UsageError(
            f'{file}: the file has no key. Add a model, and lists of values such as precision = ["fp32", "int8"].'
        )
    objectives = _objectives(file, values.pop("objectives", None))
    tables = values.pop("exclude", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) and table for table in tables):
        raise UsageError(f"{file}: exclude is not a list of tables. Write [[exclude]] above its keys.")
    study = Study(file.stem, objectives, _axes(file, values), tuple(_axes(file, table) for table in tables))
    if study.combinations > MANY_CELLS and not yes:
        raise UsageError(
            f"{file}: the sweep has {study.combinations:,} cells, more than {MANY_CELLS:,}. Remove values, or run them "
            "all with --yes."
        )
    return study


def _objectives(file: Path, asked: object) -> tuple[str, ...]:
    if asked is None:
        return ()
    if not isinstance(asked, list) or not asked or not all(isinstance(one, str) for one in asked):
        raise UsageError(f"{file}: objectives is not a list of names. Choose from {', '.join(COSTS)}.")
    if unknown := next((one for one in asked if one not in COSTS), None):
        hint = meant(unknown, COSTS)
        raise UsageError(f"{file}: the objective {unknown!r} is unknown.{hint} Choose from {', '.join(COSTS)}.")
    return tuple(dict.fromkeys(asked))


def _axes(file: Path, values: RecipeValues) -> Values:
    """Return option -> list of its values, after checking that the options exist and the values are allowed."""
    known = {field.name: field for field in dataclasses.fields(Recipe) if field.name not in OWN}
    found: Values = {}
    for key, value in values.items():
        if key not in known:
            hint = meant(key, [*known, "objectives", "exclude"])
            raise UsageError(f"{file}: unknown key {key!r}.{hint} A sweep has objectives, exclude and a recipe's keys.")
        given = value if isinstance(value, list) else [value]
        if not given:
            raise UsageError(f"{file}: {key} has no value. Give it a value, or remove the key.")
        for one in given:
            try:
                check(known[key], one)
            except UsageError as error:
                raise UsageError(f"{file}: {error}") from None
        # `threshold = 1` and `1.0` are the same cell, and have the same key.
        real = known[key].type in (float, float | None)
        found[key] = list(dict.fromkeys(float(one) if real else one for one in given))
    return found
