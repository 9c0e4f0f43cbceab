"""Makes text from other people safe to show in a terminal and in a spreadsheet.

Such text must not control the terminal, and a spreadsheet must not compute it as a formula.
"""

import re
from typing import Any

# Characters that may control a terminal: C0 and C1 (ECMA-48) except tab and line feed, line and paragraph separators,
# and directional formatting (UAX #9). Lone surrogates are included, because they cannot be encoded.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# A number, such as the label -1. It is not a formula, although it may begin with a sign.
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

# First characters with which spreadsheets take a cell for a formula, including full-width forms (OWASP, CSV injection).
_FORMULA = tuple("=+-@\t\n\uff1d\uff0b\uff0d\uff20")


def printable(text: str) -> str:
    r"""Return `text`, in which each character that could control a terminal is escaped as in JSON, such as `\u001b`."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable_json(value: Any) -> Any:  # any JSON
    """Return a JSON value with `printable` applied to every string in it, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [printable_json(one) for one in value]
    if isinstance(value, dict):
        return {printable(key): printable_json(one) for key, one in value.items()}
    return value


def cell(value: Any) -> Any:  # the value of a cell, of any type
    """Return `value` as the cell of a CSV file, safe for terminals and spreadsheets.

    A string is made `printable`. If a spreadsheet could take it for a formula, it gets a quote in front. A string that
    already has quotes before a formula gets one more, so that removing one quote always restores the string. Values of
    other types are returned unchanged.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    if _NUMBER.fullmatch(text):
        return text
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text
