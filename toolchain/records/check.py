"""Checks whether JSON that was read from a file has the keys and types of its record."""

import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Largest integer that a record may contain. An integer of 400 digits does not fit into a float, so computing with it
# would raise OverflowError.
LARGEST = 1 << 64


def find_fault(value: object, kind: Any, where: str = "", *, whole: bool = True) -> str | None:
    """Return a message about the first value in `value` that does not have the type `kind`; None if all do.

    The message says where the value is and what it is, such as `layers.count is 'x'`. `kind` is a type that records
    use: a TypedDict, list, dict, union, literal or plain type. Keys that a TypedDict does not list are allowed. With
    `whole=False` its required keys may be absent, as they are in records of earlier versions. An int is accepted where
    a float is expected; a bool is not accepted as a number.
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
        return f"{where or 'the record'} is {_short(value)}"
    begin = f"{where}." if where else ""
    if whole and (absent := sorted(kind.__required_keys__ - value.keys())):
        return f"{begin}{absent[0]} is missing"
    hints = _hints(kind)
    faults = (find_fault(entry, hints[key], begin + key, whole=whole) for key, entry in value.items() if key in hints)
    return next((fault for fault in faults if fault), None)


@functools.cache
def _hints(kind: Any) -> Mapping[str, object]:
    """Return the type of each key of a TypedDict. The result is cached, because get_type_hints is slow."""
    return get_type_hints(kind)


def _short(value: object) -> str:
    return f"{value!r:.40}"
