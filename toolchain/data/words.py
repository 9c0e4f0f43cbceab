"""Reads words and their tags, for token classification, from two columns of a table.

The text of a row is its words with a space between them.
"""

import contextlib
import json
from typing import Any

from toolchain.data.table_file import Table
from toolchain.errors import InputError


def words_and_tags(table: Table, text_column: str, label_column: str) -> tuple[list[str], list[list[Any]]]:
    """Return the text of each row, and the tags of its words as they are in the table: names or numbers.

    A cell is a list, a list written as JSON, or a text whose words or tags are separated by spaces.

    Raises:
        InputError: a cell is something else, a word is empty or contains white space, or a row does not have one tag
            for each word.
    """
    texts, tags = [], []
    for row, (cell, tagged) in enumerate(zip(table.columns[text_column], table.columns[label_column], strict=True)):
        where = f"{table.source}: row {table.number(row)}"
        words = _list(cell, f"{where}, column {text_column!r}", "words")
        own = _list(tagged, f"{where}, column {label_column!r}", "tags")
        for number, word in enumerate(words, 1):
            if not isinstance(word, str) or len(word.split()) != 1 or word != word.strip():
                raise InputError(
                    f"{where}, word {number}: {word!r:.60} is not one word. Write a word without white space."
                )
        if not words:
            raise InputError(f"{where} has no words. Remove the row.")
        if len(words) != len(own):
            raise InputError(f"{where} has {len(words)} words and {len(own)} tags. Write one tag for each word.")
        texts.append(" ".join(words))
        tags.append(own)
    return texts, tags


def _list(cell: Any, where: str, what: str) -> list[Any]:
    """Return the words or tags in a cell, which is a list, a list written as JSON, or a text with spaces."""
    if isinstance(cell, str):
        if cell.startswith("["):
            with contextlib.suppress(ValueError):  # not JSON, but words that begin with a bracket
                entries: list[Any] = json.loads(cell)
                return entries
        return cell.split()
    if not isinstance(cell, list):
        raise InputError(
            f"{where}: {cell!r:.60} is not a list of {what}. Write a JSON list, or the {what} separated by spaces."
        )
    return cell
