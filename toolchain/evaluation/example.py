"""Example rows for a bundle: rows of its data if the data are on this machine, otherwise built-in sentences."""

from pathlib import Path

from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.probes import probe_texts
from toolchain.data.rows import PACKAGE, Text, read_texts
from toolchain.data.table_file import SUFFIXES
from toolchain.errors import InputError

# SHORT: most characters of an example text. FIRST: rows of the data in which such texts are looked for. They are few,
# because a service must start at once.
SHORT, FIRST = 120, 64


def example_rows(resolved: ResolvedRecipe, count: int) -> list[Text]:
    """Return two to `count` short rows in the form that the model takes, texts or pairs.

    They come from the evaluation split or, if this machine does not have it, from built-in sentences. Nothing is
    downloaded.
    """
    rows = dict.fromkeys(_first_rows(resolved))
    short = [row for row in rows if max(map(len, row)) <= SHORT and all(part.strip() for part in row)]
    return (short if len(short) > 1 else probe_texts(resolved.head.texts_per_row))[:count]


def _first_rows(resolved: ResolvedRecipe) -> list[Text]:
    recipe, task = resolved.recipe, resolved.task
    if not resolved.has_local_rows:
        return []
    place = Path(recipe.data) if recipe.data else PACKAGE / str(task.folder)
    files = [place, *(place / f"{recipe.split}.{suffix}" for suffix in SUFFIXES)]
    try:
        for file in filter(Path.is_file, files):
            rows = next(
                read_texts(file, task.text_columns, rows=FIRST, text_join=recipe.text_join or resolved.head.join), []
            )
            return resolved.head.sequences(rows)
    except (InputError, ModuleNotFoundError):  # the data were moved or changed, or the installation cannot read tables
        pass
    return []
