from typing import Any

from toolchain.report.columns import SECOND_STAGE, html_columns
from toolchain.report.table import headings, names_of, rows, title


def test_title_says_what_was_evaluated(result: dict[str, Any]) -> None:
    assert title(result) == "some-model on sst2 validation, 872 rows"


def test_cells_are_rounded_in_the_order_of_the_headings(result: dict[str, Any]) -> None:
    assert dict(zip(headings([result]), rows([result])[0], strict=True)) == {
        "runtime": "ort cpu",
        "variant": "int8.cpu",
        "accuracy [95 % CI]": "0.8812 [0.860, 0.900]",
        "agree": "0.9914",
        "diff": "0.3125",
        "p50 ms": "1.25",
        "p99 ms": "3.88",
        "rows/s": "1,234",
        "util": "-",
        "MB": "256",
        "mJ/row": "-",
    }


def test_unmeasured_values_are_a_dash_and_never_0(regression: dict[str, Any]) -> None:
    cells = dict(zip(headings([regression]), rows([regression])[0], strict=True))
    assert {name for name, cell in cells.items() if cell == "-"} == {"agree", "util", "MB", "mJ/row"}


def test_utilisation_is_a_percentage_and_unknown_without_a_roofline(result: dict[str, Any]) -> None:
    known = result | {"roofline": {"model_flop_utilisation": 0.4275}}
    unknown = result | {"roofline": {"model_flop_utilisation": None, "reason": "no_graph"}}
    column = headings([known]).index("util")
    assert [row[column] for row in rows([known, unknown, result])] == ["42.8", "-", "-"]


def test_a_page_with_a_cascade_has_the_share_of_the_second_stage(result: dict[str, Any]) -> None:
    both = result | {"cascade": {"passed_on": 0.4512}}
    assert SECOND_STAGE not in dict(html_columns([result]))
    cell = dict(html_columns([result, both]))[SECOND_STAGE]
    assert [part.text for part in cell(both).parts] == ["45.1%"]
    assert cell(result).reason == "it is not a cascade"


def test_names_tell_results_apart(result: dict[str, Any], measured: dict[str, Any]) -> None:
    assert names_of([result, measured]) == ["ort int8.cpu", "trt fp16 cuda:0"]
    twins = [result | {"file": f"{bundle}/results/ort.json"} for bundle in ("one", "other")]
    assert names_of(twins) == ["ort int8.cpu of one", "ort int8.cpu of other"]
