"""Reads texts without labels for `toolchain predict`, from the command line or from the lines of a stream."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolchain.data.rows import Text
from toolchain.data.table_file import convert
from toolchain.errors import InputError, UsageError

# The largest number of bytes that one read takes from a stream. A pipe returns at once what it has, at most 64 KiB, so
# the rows of a slow writer need not wait for more rows.
READ_BYTES = 1 << 20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def from_arguments(words: Sequence[str], *, parts: int) -> list[Text]:
    """Group the texts of a command line into rows of `parts` texts: 1, or 2 if the model reads pairs.

    Raises:
        UsageError: the number of texts is odd where rows are pairs.
        InputError: a text is not UTF-8.
    """
    if len(words) % parts:
        raise UsageError(
            f"TEXT: there are {len(words)} texts, but this model reads pairs. Give two texts for each row."
        )
    rows = list(zip(*(words[start::parts] for start in range(parts)), strict=True))
    for number, row in enumerate(rows, 1):
        # Python decodes arguments with os.fsdecode, which turns bytes that are not UTF-8 into surrogates.
        if any("\ud800" <= character <= "\udfff" for text in row for character in text):
            raise InputError(f"TEXT: row {number} is not UTF-8. Convert it to UTF-8.")
    return rows


def from_lines(descriptor: int, *, parts: int, source: str) -> Iterator[list[Text]]:
    """Read rows from a file descriptor, one per line, and yield them as soon as they arrive.

    A row has `parts` texts: 1, or 2 with a tab between them.

    Raises:
        InputError: a line is empty, is not UTF-8, or has another number of texts. The message names `source` and the
            row.
    """
    number, rest = 0, b""
    while data := os.read(descriptor, READ_BYTES):
        *lines, last = data.split(b"\n")
        if lines:
            lines[0], rest = rest + lines[0], last
            yield [_row(line, number + index, parts, source) for index, line in enumerate(lines, 1)]
            number += len(lines)
        else:
            rest += last
    if rest:
        yield [_row(rest, number + 1, parts, source)]


def count_lines(file: Path) -> int:
    """Return the number of line feeds in a file, which is an upper bound for the rows of a text table."""
    with file.open("rb") as read:
        return sum(block.count(b"\n") for block in iter(lambda: read.read(READ_BYTES), b""))


def _row(line: bytes, number: int, parts: int, source: str) -> Text:
    if number == 1:
        line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        text = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: row {number} is not UTF-8 ({error.reason}). {convert()}") from None
    row = tuple(text.split("\t")) if parts > 1 else (text,)
    if len(row) != parts:
        raise InputError(f"{source}: row {number} is not a pair. Write two texts with a tab between them.")
    if not all(row):
        raise InputError(f"{source}: row {number} is empty. Write a text there, or remove the line.")
    return row
