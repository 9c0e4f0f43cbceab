"""Reads one table file (tsv, csv, JSON, CoNLL or parquet) into columns of Python values.

`data/tables.py` finds the files of a split. If a file cannot be read, the error says how to fix it.
"""

import codecs
import csv
import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolchain.errors import InputError, first_line

if TYPE_CHECKING:
    import pyarrow

# Suffixes of tables, in the order in which a folder is searched for them.
SUFFIXES = ("tsv", "csv", "jsonl", "ndjson", "json", "conll", "parquet")

# Suffix of a compressed file -> the command that unpacks it.
COMPRESSED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}

# The beginning of a Git LFS pointer, the small file that a clone without LFS has in the place of the real file.
LFS_POINTER = b"version https://git-lfs.github.com/"

# A quoted cell of a csv file, in which each quote inside is doubled.
QUOTED = re.compile(r'"(?:[^"]|"")*"')

# The largest number of characters in a cell of a csv file; the default of Python's module csv is 131,072. If a closing
# quote is missing, a cell has all the text up to the next quote: with this limit, 64 MiB at 4 bytes per character.
LONGEST_CELL = 2**24

# First bytes of a file in another format, which may have the suffix of a table -> advice. `BZh` or `PAR1` alone could
# begin a header, so the bytes after them are compared too: the level and the mark of a block for bzip2, and the first
# field of a struct for parquet.
BYTES = {
    b"\x1f\x8b": "Unpack it: gunzip < OLD > NEW",
    **{f"BZh{level}1AY&SY".encode(): "Unpack it: bunzip2 < OLD > NEW" for level in range(1, 10)},
    b"\xfd7zXZ": "Unpack it: unxz < OLD > NEW",
    b"(\xb5/\xfd": "Unpack it: unzstd < OLD > NEW",
    b"PK\x03\x04": "It is an archive or a workbook: unpack it, or save its sheet as csv.",
    b"PAR1\x15": "It is a parquet file: rename it to .parquet.",
}

# pandas' message about a line with more cells than the header.
LONG_LINE = re.compile(r"Expected (?P<names>\d+) fields in line (?P<line>\d+), saw (?P<cells>\d+)")

# The values of a column, as they are read from JSON, Arrow or CSV. A missing value is None.
Cells = list[Any]


@dataclass(frozen=True)
class Table:
    """A table: its cells by column.

    `source` names the file or the data set in messages. `class_names` has the names of the classes for each column of
    the type ClassLabel, whose cells are numbers. If the table is a part of a file, `before` counts the rows before it.
    `numbers` are the rows' numbers in the file, from 1; None if the rows are consecutive.
    """

    source: str
    columns: dict[str, Cells]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    before: int = 0
    numbers: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    def number(self, index: int) -> int:
        """Return the number of a row in its file, from 1."""
        return self.numbers[index] if self.numbers else self.before + index + 1

    def take(self, indices: Sequence[int]) -> "Table":
        """Return the rows at `indices`, in that order."""
        columns = {name: [cells[index] for index in indices] for name, cells in self.columns.items()}
        return dataclasses.replace(self, columns=columns, numbers=tuple(map(self.number, indices)))


def read_parts(file: Path, rows: int | None = None) -> Iterator[Table]:
    """Read a file in the format of its suffix, and yield tables of `rows` rows, or one table if `rows` is None.

    Raises:
        InputError: the suffix is unknown, two columns have one name, or the file is empty, is not UTF-8, or cannot be
            parsed.
    """
    import pandas
    import pyarrow

    if file.suffix.lower()[1:] not in SUFFIXES or not file.is_file():
        raise InputError(f"{file}: this is not a table that can be read. {advice_on(file)}")
    _refuse_bytes(file)
    parts, before = _parts(file, rows), 0
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)  # or pandas drops cells beyond the header
                part = next(parts, None)
        except pandas.errors.EmptyDataError:
            raise InputError(f"{file}: the file is empty. Give a file with a header and rows.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: {_not_utf8(file)} is not UTF-8 ({error.reason}). {convert(file)}") from None
        except pandas.errors.ParserWarning:
            raise InputError(
                f"{file}: row 1 has more cells than the header. Remove the extra cells, or name their columns."
            ) from None
        except (ValueError, OSError, csv.Error, pyarrow.ArrowException) as error:
            first = first_line(error).rstrip(".")
            if found := LONG_LINE.search(first):
                raise InputError(
                    f"{file}: line {found['line']} has {found['cells']} cells, and the header has {found['names']}. "
                    "Put quotes around cells that contain the column separator, or remove the extra cells."
                ) from None
            kind = file.suffix[1:].lower()
            raise InputError(f"{file}: the file cannot be read as {kind}: {first}. Fix the file.") from None
        if part is None:
            return
        yield dataclasses.replace(part, before=before)
        before += len(part)


def _refuse_bytes(file: Path) -> None:
    """Refuse a Git LFS pointer, and a file whose first bytes belong to another format than its suffix says."""
    if _begins(file, LFS_POINTER):
        raise InputError(f"{file}: this is a Git LFS pointer, and not the file itself. Fetch the file: git lfs pull")
    if file.suffix.lower() != ".parquet":
        for start, advice in BYTES.items():
            if _begins(file, start):
                raise InputError(f"{file}: the content is not a table, despite the suffix. {advice}")


def _parts(file: Path, rows: int | None) -> Iterator[Table]:
    """Yield the tables of `read_parts`, but do not translate the errors of pandas, pyarrow and csv."""
    from pyarrow.parquet import ParquetFile

    match file.suffix.lower():
        case ".tsv":  # without quoting: `"` is an ordinary character
            yield from _delimited(file, rows, sep="\t", quoting=csv.QUOTE_NONE)
        case ".csv":
            yield from _delimited(file, rows, sep=_delimiter(file), quoting=csv.QUOTE_MINIMAL)
        case ".jsonl" | ".ndjson" | ".json":
            objects = _objects(file)
            yield _of_objects(list(itertools.islice(objects, rows)), file)
            while rows and (some := list(itertools.islice(objects, rows))):
                yield _of_objects(some, file)
        case ".conll":
            sentences = _sentences(file)
            while (some := list(itertools.islice(sentences, rows))) or rows is None:
                yield _of_objects(some, file)
                if rows is None:
                    return
        case _:
            with ParquetFile(file) as opened:
                if rows is None:
                    yield of_arrow(opened.read(), str(file))
                else:
                    batches = opened.iter_batches(batch_size=rows)
                    yield from (of_arrow(batch, str(file)) for batch in batches)


def _delimited(file: Path, rows: int | None, *, sep: str, quoting: Literal[0, 3]) -> Iterator[Table]:
    """Yield the tables of a tsv or csv file, whose cells are texts.

    An empty cell becomes None, because pandas does not tell it from a cell that is missing at the end of a row.
    """
    import pandas

    csv.field_size_limit(LONGEST_CELL)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines, delimiter=sep, quoting=quoting), [])
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{file}: two columns are called {twice[0]!r}. Give them distinct names.")
    if any("\0" in name for name in header):  # in UTF-16, each ASCII letter has a NUL byte beside it
        raise InputError(f"{file}: the file is not UTF-8, but UTF-16. {_from_utf16(file)}")
    if quoting == csv.QUOTE_MINIMAL:
        _refuse_open_quotes(file, sep)
    with pandas.read_csv(
        file,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        index_col=False,
        encoding="utf-8",
        sep=sep,
        quoting=quoting,
        skip_blank_lines=len(header) != 1,  # with a single column, a blank line is a row with an empty cell
        iterator=True,
        chunksize=rows,
    ) as opened:
        for part in opened if rows else [opened.read()]:
            columns = {
                str(name): [cell if isinstance(cell, str) else None for cell in part[name]] for name in part.columns
            }
            yield Table(str(file), columns)


def _delimiter(file: Path) -> str:
    """Return the column separator of a csv: a comma, or a semicolon or tab if the header contains no comma.

    A separator in quotes is part of a column's name.
    """
    with file.open(encoding="utf-8-sig") as lines:
        header = re.sub(r'"[^"]*"', "", lines.readline())
    if re.fullmatch(r"sep=.\s*", header, re.IGNORECASE):
        raise InputError(f"{file}: its first line, {header.strip()!r}, is only for spreadsheets. Remove the line.")
    return next((sign for sign in ",;\t" if sign in header), ",")


def _refuse_open_quotes(file: Path, sep: str) -> None:
    """Refuse a csv with an unclosed quote, with text after a closing quote, or with a cell that is too long.

    pandas accepts text after a closing quote, so one missing quote would merge all rows up to the next quote.
    """
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader, before = csv.reader(lines, delimiter=sep, strict=True), 0
        try:
            for _ in reader:
                before = reader.line_num
        except csv.Error:
            first, last = before + 1, reader.line_num
            place = f"line {last} has" if first == last else f"lines {first} to {last} have"
            raise InputError(
                f"{file}: {place} an unclosed quote, text after a closing quote, or a cell of more than "
                f"{LONGEST_CELL:,} characters. "
                "Put quotes around the cell and write each quote in it twice, or shorten the cell."
            ) from None


def refuse_quotes(table: Table) -> None:
    """Refuse a tsv whose cells are quoted like those of a csv. The quotes would become part of the texts.

    The cells count as quoted if each cell with a quote has quotes around it, and one also has doubled quotes inside.

    Raises:
        InputError: the cells are quoted.
    """
    if not table.source.lower().endswith(".tsv"):
        return
    cells = [cell for column in table.columns.values() for cell in column if cell and '"' in cell]
    if cells and all(map(QUOTED.fullmatch, cells)) and any('""' in cell[1:-1] for cell in cells):
        raise InputError(
            f"{table.source}: its cells are quoted, such as {cells[0]:.60}, but quotes in a tsv are part of the text. "
            "Rename the file to .csv: a csv is read with quoting, and its columns may be separated by tabs."
        )


def _objects(file: Path) -> Iterator[dict[str, Any]]:  # arbitrary JSON of the user
    """Yield the rows of a JSON file: the objects of an array, or one object for each line.

    Raises:
        InputError: a `.json` file is a single object, a line is not JSON, or a row is not an object.
    """
    # Only a line feed ends a line, because a text may contain other line separators.
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        numbered = ((f"{file}: line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
        first = list(itertools.islice(numbered, 2))
        if first and first[0][1].lstrip().startswith("["):
            found = _parsed("".join(line for _, line in first) + lines.read(), f"{file}: its array")
            yield from (_object(row, f"{file}: item {number}") for number, row in enumerate(found, 1))
            return
        if file.suffix.lower() == ".json" and (len(first) == 1 or (first and first[0][1].strip() == "{")):
            raise InputError(
                f"{file}: the file is one object, and not rows. Write an array of objects, or one object per line, as "
                "to_json of pandas does with orient='records' and lines=True."
            )
        for where, line in itertools.chain(first, numbered):
            yield _object(_parsed(line, where), where)


def _sentences(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the words and tags of each sentence in a CoNLL file, from the first and the last column of its lines.

    Blank lines separate sentences. Lines that begin with -DOCSTART- are skipped.

    Raises:
        InputError: a line has only one column.
    """
    with file.open(encoding="utf-8-sig") as lines:
        sentence: list[list[str]] = []
        for number, line in enumerate(itertools.chain(lines, [""]), 1):
            cells = line.split()
            if cells and cells[0] == "-DOCSTART-":
                continue
            if len(cells) == 1:
                raise InputError(f"{file}: line {number}, {line.strip()!r:.60}, is a word without a tag. Add its tag.")
            if cells:
                sentence.append(cells)
            elif sentence:
                yield {"words": [cells[0] for cells in sentence], "tags": [cells[-1] for cells in sentence]}
                sentence = []


def _parsed(text: str, where: str) -> Any:  # arbitrary JSON of the user
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _distinct(pairs, where))
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON. Fix the file.") from None


def _distinct(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:  # arbitrary JSON of the user
    """Return a JSON object as a dictionary. Refuse a key that occurs twice, whose first value json would silently drop.

    `where` names the file and the line in the message.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name in found if [key for key, _ in pairs].count(name) > 1)
        raise InputError(f"{where} has the key {twice!r} twice. Rename or remove one of them.")
    return found


def _object(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a JSON object. Fix the file.")
    return found


def _of_objects(objects: list[dict[str, Any]], file: Path) -> Table:
    names = dict.fromkeys(name for row in objects for name in row)
    return Table(str(file), {name: [row.get(name) for row in objects] for name in names})


def of_arrow(table: "pyarrow.Table | pyarrow.RecordBatch", source: str) -> Table:
    """Return an Arrow table as a `Table`, with the class names that `datasets` stores in the schema.

    Raises:
        InputError: two columns have one name.
    """
    import datasets

    names = table.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source}: two columns are called {twice[0]!r}. Give them distinct names.")
    classes = {}
    if b"huggingface" in (table.schema.metadata or {}):
        try:
            features = datasets.Features.from_arrow_schema(table.schema)
        except Exception:  # from another version of datasets; class numbers then have no names
            features = {}
        flat = {name: getattr(kind, "feature", kind) for name, kind in features.items()}  # of lists: their elements
        classes = {name: kind.names for name, kind in flat.items() if isinstance(kind, datasets.ClassLabel)}
    return Table(source, {name: table[name].to_pylist() for name in names}, classes)


def advice_on(file: Path) -> str:
    """Return the advice at the end of the message about a file that is not a table."""
    if command := COMPRESSED.get(file.suffix.lower()):
        return f"Unpack it: {command} {file.name}"
    if not file.is_file():
        return "It is a broken link, a pipe or a device. Save it as a file."
    return f"Give a file whose name ends with .{', .'.join(SUFFIXES)}."


def convert(file: Path | None = None) -> str:
    """Return advice on converting a file, or a stream (None), to UTF-8. UTF-16 is recognised by its byte order mark."""
    if file and _begins(file, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return f"It is UTF-16. {_from_utf16(file)}"
    return "Convert it: iconv -f ENCODING -t UTF-8 OLD > NEW. ENCODING is often WINDOWS-1252 in western Europe."


def _from_utf16(file: Path) -> str:
    marked = _begins(file, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return f"Convert it: iconv -f UTF-16{'' if marked else 'LE'} -t UTF-8 {file.name} > NEW{file.suffix}"


def _begins(file: Path, *starts: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(max(map(len, starts))) in starts


def _not_utf8(file: Path) -> str:
    """Return "line N" for the first line that is not UTF-8, or "a line" if every line alone is UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number}"
    return "a line"
