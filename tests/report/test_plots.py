import re
from typing import Any
from xml.etree import ElementTree

import pytest

from toolchain.report import plots, record_plots
from toolchain.report.plots import Axis, pareto


def test_the_front_has_the_points_that_no_other_beats_in_both() -> None:
    speeds, quality = [100, 300, 200, 400], [0.90, 0.88, 0.87, 0.80]
    points = list(zip(speeds, quality, strict=True))
    beaten = {at for at, (x, y) in enumerate(points) for u, v in points if u >= x and v >= y and (u, v) != (x, y)}
    assert set(pareto(speeds, quality, less=False)) == set(range(4)) - beaten


def test_less_cost_is_better() -> None:
    assert pareto([3, 1, 2], [0.9, 0.7, 0.6], less=True) == [1, 0]


def draw_all(results: list[dict[str, Any]], tuned: dict[str, Any], power: dict[str, Any]) -> list[Any]:
    cost = Axis("rows/s", "throughput_per_s", ((1.0, 1.0, 1.0),) * len(results))
    return [
        plots.against(results, cost, name="a", caption=""),
        plots.latency(results, name="l"),
        plots.padding(results, name="p"),
        plots.lengths(results, name="h"),
        record_plots.sensitivity(tuned, name="s"),
        record_plots.power(power, name="w"),
    ]


def test_plots_are_well_formed_without_styles_and_the_same_each_time(
    result: dict[str, Any], tuned: dict[str, Any], power: dict[str, Any]
) -> None:
    first, again = (draw_all([result], tuned, power) for _ in range(2))
    assert [plot.svg for plot in first] == [plot.svg for plot in again]
    for plot in first:
        svg = ElementTree.fromstring(plot.svg)
        assert svg.get("role") == "img"
        assert [child.tag for child in svg][:2] == ["title", "desc"]
        assert "style" not in {name for element in svg.iter() for name in element.attrib}
        assert not re.search(r"https?:|xlink|#0[123]0[0-9a-f]{3}", plot.svg)


def test_references_stay_within_the_plot_and_ids_differ_between_plots(
    result: dict[str, Any], tuned: dict[str, Any], power: dict[str, Any]
) -> None:
    drawn = draw_all([result], tuned, power)
    ids = [found for plot in drawn for found in re.findall(r' id="([^"]+)"', plot.svg)]
    assert len(ids) == len(set(ids))
    for plot in drawn:
        wanted = re.findall(r'(?:href="|url\()#([^")]+)', plot.svg)
        assert set(wanted) <= set(re.findall(r' id="([^"]+)"', plot.svg))


def test_labels_are_text_and_dollar_signs_do_not_start_a_formula(result: dict[str, Any]) -> None:
    plot = plots.latency([result | {"variant": "a$b$c<i>"}], name="l")
    assert "ort a$b$c&lt;i&gt;</text>" in plot.svg


def test_plots_without_data_are_none(result: dict[str, Any], tuned: dict[str, Any], power: dict[str, Any]) -> None:
    del result["tokens"]
    assert plots.padding([result], name="p") is None
    assert plots.lengths([result], name="h") is None
    unmeasured = [one | {"effect": None} for one in tuned["products"]]
    assert record_plots.sensitivity(tuned | {"products": unmeasured}, name="s") is None
    assert record_plots.power(power | {"samples": None}, name="w") is None


@pytest.mark.parametrize("far", [1.5, 5000.0])
def test_a_scale_contains_every_value(result: dict[str, Any], far: float) -> None:
    other = result | {"latency_ms": {**result["latency_ms"], "p99": far}}
    assert f"p99 {far:.3g} ms" in plots.latency([result, other], name="l").svg


def test_a_result_keeps_its_colour_where_others_were_not_measured(result: dict[str, Any]) -> None:
    twins = [result | {"variant": name} for name in ("a", "b")]
    axis = Axis("energy", "energy.per_inference_j", (None, (1.0, 0.9, 1.1)))
    plot = plots.against(twins, axis, name="a", caption="")
    assert "--series-1" in plot.svg
    assert "--series-0" not in plot.svg
    assert plot.sources == (twins[1]["file"],)
