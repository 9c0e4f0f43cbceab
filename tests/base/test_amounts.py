"""Figures of every size say something, and one thing has no s."""

import pytest

from toolchain.base.amounts import counted, megabytes


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0.0"),
        (12_345, "<0.1"),
        (50_000, "0.1"),
        (312_000, "0.3"),
        (9_400_000, "9.4"),
        (52_400_000, "52"),
        (1_234_500_000, "1,234"),
    ],
)
def test_megabytes_of_a_small_graph_are_not_0(count, shown):
    assert megabytes(count) == shown


def test_a_noun_is_plural_unless_there_is_one():
    assert [counted(count, "row") for count in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
