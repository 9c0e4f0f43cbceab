"""Whether JSON that was read has the types of its record."""

import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Largest integer of a record. A float does not hold one of 400 digits, so computing with it would raise.
LARGEST = 1 << 64


def find_fault(value: object, kind: Any, where: str = "", *, whole: bool = True) -> str | None:
    """Return where JSON differs from a type, and how, or None if it does not.

    `kind` is a type of these records: a TypedDict, list, dict, a union, a literal, or a plain type. A TypedDict may
    have other keys, and with `whole=False` lack some, as records of earlier versions do. An int is a float too, and a
    bool is not a number.
    """
    if kind is Any or kind is object:
        return None
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        found = [find_fault(value, part, where, whole=whole) for part in parts]
        return None if None in found else max((fault for fault in found if fault), key=len)
    if origin is Literal:
        return None if value in parts else f"{where} is {_short(value)}"
    if typing.is_typeddict(kind):
        return _of_record(value, kind, where, whole=whole)
    inner: Iterable[tuple[Any, Any]] | None
    if origin is list:
        inner = enumerate(value) if isinstance(value, list) else None
    elif origin in (dict, Mapping):
        inner = value.items() if isinstance(value, dict) else None
    else:
        allowed = (int, float) if kind is float else type(None) if kind is None else kind
        fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
        fits = fits and not (isinstance(value, int) and abs(value) > LARGEST)
        return None if fits else f"{where} is {_short(value)}"
    if inner is None:
        return f"{where} is {_short(value)}"
    faults = (
        find_fault(entry, parts[-1], f"{where}.{key}" if where else str(key), whole=whole) for key, entry in inner
    )
    return next((fault for fault in faults if fault), None)


def _of_record(value: object, kind: Any, where: str, *, whole: bool) -> str | None:
    if not isinstance(value, dict):
        return f"{where or 'it'} is {_short(value)}"
    begin = f"{where}." if where else ""
    if whole and (absent := sorted(kind.__required_keys__ - value.keys())):
        return f"{begin}{absent[0]} is missing"
    hints = _hints(kind)
    faults = (find_fault(entry, hints[key], begin + key, whole=whole) for key, entry in value.items() if key in hints)
    return next((fault for fault in faults if fault), None)


@functools.cache
def _hints(kind: Any) -> Mapping[str, object]:
    """Return the types of a record's keys. Finding them takes longer than all else here, and a record is read often."""
    return get_type_hints(kind)


def _short(value: object) -> str:
    return f"{value!r:.40}"
