from typing import Any, Literal, NotRequired, TypedDict

import pytest

from toolchain.records.check import find_fault


class Inner(TypedDict):
    n: int
    kind: NotRequired[Literal["a", "b"]]


class Outer(TypedDict):
    inner: Inner
    share: float | None
    names: list[str]
    by_name: dict[str, Inner]
    rest: Any


RIGHT: dict[str, Any] = {"inner": {"n": 1, "kind": "a"}, "share": 1, "names": ["x"], "by_name": {"y": {"n": 2}}}
RIGHT |= {"rest": {"any": [None]}, "another": 1}


def test_a_record_of_its_type_has_no_fault() -> None:
    assert find_fault(RIGHT, Outer) is None
    assert find_fault({**RIGHT, "share": None}, Outer) is None
    assert find_fault({"names": []}, Outer, whole=False) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"inner": {}}, "inner.n is missing"),
        ({"inner": {"n": True}}, "inner.n is True"),
        ({"inner": {"n": 1, "kind": "c"}}, "inner.kind is 'c'"),
        ({"inner": []}, "inner is []"),
        ({"share": "1"}, "share is '1'"),
        ({"share": 10**400}, f"share is {10**39}"),
        ({"inner": {"n": -(10**400)}}, f"inner.n is -{10**38}"),
        ({"names": "x"}, "names is 'x'"),
        ({"names": ["x", 1]}, "names.1 is 1"),
        ({"by_name": {"y": None}}, "by_name.y is None"),
        ({"by_name": {"y": {"n": 1.5}}}, "by_name.y.n is 1.5"),
    ],
)
def test_a_fault_is_named_with_its_place_and_value(change: dict[str, Any], fault: str) -> None:
    assert find_fault(RIGHT | change, Outer) == fault


def test_what_is_not_a_record_is_named() -> None:
    assert find_fault([1], Outer) == "the record is [1]"
