"""`POST /classify`, for people: one text, or several, and beside each its pair where the model compares two."""

from typing import TYPE_CHECKING, Any

from toolchain.serve.http.codec import load
from toolchain.serve.protocol import Reason, RefusedError

if TYPE_CHECKING:
    from toolchain.data.rows import Text

KEYS = ("text", "pair")


def decode(body: bytes, texts: int) -> tuple[list["Text"], bool]:
    """Return the texts, each a tuple of `texts` parts, and whether they were given as a list.

    Raises:
        RefusedError: it is not of this form, or has not the parts that the model takes.
    """
    record = load(body)
    unknown = [key for key in record if key not in KEYS]
    if unknown:
        raise _refused(f"unknown key '{unknown[0]}': give {' and '.join(KEYS[:texts])}")
    wanted = KEYS[:texts]
    if "pair" in record and "pair" not in wanted:
        raise _refused("'pair' is not taken: this model reads one text")
    columns = [_column(record, key) for key in wanted]
    several = isinstance(record["text"], list)
    if any(isinstance(record[key], list) != several for key in wanted) or len({*map(len, columns)}) > 1:
        raise _refused("'text' and 'pair' must be two texts, or two lists of the same length")
    return list(zip(*columns, strict=True)), several


def _column(record: dict[str, Any], key: str) -> list[str]:
    if key not in record:
        raise _refused(f"'{key}' is missing: give a text, or a list of texts")
    found = record[key] if isinstance(record[key], list) else [record[key]]
    if not found or not all(type(text) is str for text in found):
        raise _refused(f"'{key}' must be a text, or a list of texts")
    return found


def _refused(message: str) -> RefusedError:
    return RefusedError(Reason.INVALID, message)
