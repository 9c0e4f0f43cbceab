"""Rows of text and label, from a folder, the hub, or the demo's files in this package."""

import csv
import json
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.data import hub
from toolchain.data.tasks import Task
from toolchain.errors import InputError, MachineError, UsageError, first_line
from toolchain.files import sha256_json

if TYPE_CHECKING:
    import pandas

SUFFIXES = ("tsv", "csv", "jsonl", "parquet")
PACKAGE = Path(__file__).parent

# The text of a row, or the two texts of a pair.
Text = tuple[str, ...]


class MissingSplitError(InputError):
    """The folder exists, but lacks the split that was asked for."""


@dataclass(frozen=True)
class Rows:
    """The rows of one split, in the order of the file.

    `source` names the file or the data set in messages. Labels are as they were read: text or numbers.
    """

    source: str
    texts: list[Text]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Rows":
        """Return the rows at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        return Rows(
            self.source,
            [self.texts[index] for index in chosen],
            [self.labels[index] for index in chosen],
        )

    def sample(self, count: int, *, seed: int) -> "Rows":
        """Return at most `count` rows, drawn without replacement, in the file's order."""
        generator = np.random.default_rng(seed)
        return self.take(np.sort(generator.choice(len(self), size=min(count, len(self)), replace=False)))

    @property
    def digest(self) -> str:
        """The SHA-256 of texts and labels. It does not depend on where the rows were read from."""
        return sha256_json([self.texts, [str(label) for label in self.labels]])

    @property
    def text_digests(self) -> list[str]:
        """A short digest of each row's text without its case, to recognise rows without keeping their text."""
        folded = ([part.strip().lower() for part in text] for text in self.texts)
        return [sha256_json(text)[:16] for text in folded]

    def without(self, digests: Collection[str]) -> "Rows":
        """Return the rows whose text is neither among `digests` nor in an earlier row."""
        seen = set(digests)
        fresh = []
        for index, digest in enumerate(self.text_digests):
            if digest not in seen:
                seen.add(digest)
                fresh.append(index)
        return self.take(fresh)


def load_rows(task: Task, split: str, *, data: str | None = None) -> Rows:
    """Read one split of a task from `data`, else from the task's own source.

    Raises:
        MissingSplitError: the folder lacks the split.
        InputError: the folder or a column is missing, a cell is empty, or the file has no rows or cannot be read.
        UsageError: the hub's data set lacks the split.
        MachineError: the hub is needed and cannot be reached.
    """
    if data is None and task.folder is None and task.hub:
        table, source = _from_hub(task, split), f"{task.hub['path']}/{task.hub.get('config')} {split}"
    elif data is None and task.folder is None:
        raise InputError(f"--task {task.name}: the task has no data of its own. Name a folder with --data DIR.")
    else:
        file = _find(Path(data) if data else PACKAGE / str(task.folder), split)
        table, source = _read(file), str(file)
    if not len(table):
        raise InputError(f"{source}: no rows. Give a file with at least one row.")
    wanted = [*task.text_columns, task.label_column]
    if absent := [column for column in wanted if column not in table.columns]:
        raise InputError(
            f"{source}: there is no column {absent[0]!r}, only {', '.join(map(str, table.columns))}. "
            "Name the columns with --task custom --text-column A[,B] --label-column L."
        )
    holes = table[wanted].isna().any(axis=1).to_numpy()
    if holes.any():
        raise InputError(f"{source}: row {int(holes.argmax()) + 1} has an empty cell. Fill or remove it.")
    texts = [table[column].astype(str).tolist() for column in task.text_columns]
    return Rows(source, list(zip(*texts, strict=True)), table[task.label_column].tolist())


def _find(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise InputError(f"--data {folder}: the folder does not exist. Give one with a file such as {split}.tsv.")
    found = [folder / f"{split}.{suffix}" for suffix in SUFFIXES]
    found = [file for file in found if file.is_file()]
    if not found:
        wanted = ", ".join(f"{split}.{suffix}" for suffix in SUFFIXES)
        raise MissingSplitError(f"{folder}: none of {wanted} exists. Add the split, or choose another with --split.")
    return found[0]


def _read(file: Path) -> "pandas.DataFrame":
    """Read a table by the suffix of its file. A tsv has no quoting: `"` is an ordinary character.

    Raises:
        InputError: the file is empty, is not UTF-8, or cannot be parsed.
    """
    import pandas
    import pyarrow

    table: pandas.DataFrame
    try:
        match file.suffix:
            case ".tsv":
                table = _delimited(file, sep="\t", quoting=csv.QUOTE_NONE)
            case ".csv":
                table = _delimited(file)
            case ".jsonl":
                table = pandas.DataFrame(_read_jsonl(file))
            case _:
                table = pandas.read_parquet(file)
    except pandas.errors.EmptyDataError:
        raise InputError(f"{file}: empty. Give a file with a header and rows.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 in line {_not_utf8(file)} ({error.reason}). Convert it.") from None
    except pandas.errors.ParserWarning:
        raise InputError(f"{file}: row 1 has more cells than the header. Fix the file.") from None
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        first = first_line(error).rstrip(".")
        raise InputError(f"{file}: cannot be read as {file.suffix[1:]}: {first}. Fix the file.") from None
    return table


def _delimited(file: Path, **how: Any) -> "pandas.DataFrame":
    """Read cells as text. An empty cell counts as missing, because a row that ends early looks the same."""
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # otherwise pandas drops cells beyond the header's
        table: pandas.DataFrame = pandas.read_csv(
            file, dtype=str, keep_default_na=False, na_values=[""], index_col=False, encoding="utf-8", **how
        )
    return table


def _read_jsonl(file: Path) -> list[dict[str, Any]]:  # arbitrary JSON of the user
    """Read one JSON object a line.

    Raises:
        InputError: a line is not a JSON object.
    """
    objects = []
    # `splitlines` would also split at line ends of other kinds, which a text may contain.
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                objects.append(json.loads(line))
            except ValueError:
                raise InputError(f"{file}: line {number} is not JSON. Fix the file.") from None
            if not isinstance(objects[-1], dict):
                raise InputError(f"{file}: line {number} is not a JSON object. Fix the file.")
    return objects


def _not_utf8(file: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _from_hub(task: Task, split: str) -> "pandas.DataFrame":
    """Read a split from the hub, or from its local cache.

    Raises:
        UsageError: the data set lacks the split.
        MachineError: the hub cannot be reached and the cache lacks the data.
    """
    import datasets
    from huggingface_hub import constants

    name = task.hub.get("splits", {}).get(split, split)
    if hub.unreachable():  # look into the local cache at once, not after half a minute of retries
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        table = datasets.load_dataset(task.hub["path"], task.hub.get("config"), split=name)
    except ValueError as error:
        raise UsageError(
            f"--split {split}: {task.hub['path']} lacks it: {error}. Choose another with --split."
        ) from error
    except Exception as error:  # the hub's clients have no common error for a hub that cannot be reached
        raise MachineError(
            f"--task {task.name}: the split {split} of {task.hub['path']} cannot be fetched "
            f"({type(error).__name__}). Give the data with --data DIR, or try `-m demo --task demo`."
        ) from error
    found: pandas.DataFrame = table.to_pandas()
    return found
