"""The page in a real browser, on a phone and a desktop: no requests, no errors, and every plot is drawn."""

from pathlib import Path
from typing import Any

import pytest

from toolchain.report.html import html
from toolchain.report.inputs import Material

SIZES = {"phone": (390, 844), "desk": (1280, 1600)}

PLOTS = """[...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect(), drawn = svg.querySelector('g').getBoundingClientRect();
  return [box.width, box.height, drawn.width, drawn.height];
})"""

COLOURS = """(() => {
  const of = (name, key) => getComputedStyle(document.querySelector(name))[key];
  return {ink: of('html', 'color'), paper: of('html', 'backgroundColor'), label: of('figure svg text', 'fill'),
          series: [...document.querySelectorAll('figure svg path')].map(path => getComputedStyle(path).stroke)};
})()"""


@pytest.fixture(scope="module")
def opened(browser: Any) -> Any:
    return browser


@pytest.fixture
def page(reference: Any, result: Any, measured: Any, tuned: Any, power: Any, tmp_path: Path) -> Path:
    model = "organisation/" + "a-very-long-name-" * 12
    results = [one | {"model": model} for one in (reference, result, measured)]
    other = result | {"task": "rte", "file": "folder/" * 30 + "ort.json"}
    file = tmp_path / "report.html"
    file.write_text(html(Material([*results, other], [tuned], [power])), encoding="utf-8")
    return file


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_from_the_file_system(opened: Any, page: Path, tmp_path: Path, size: str, dark: bool) -> None:
    width, height = SIZES[size]
    opened.open(page, width=width, height=height, dark=dark)
    opened.screenshot(tmp_path / f"{size}-{'dark' if dark else 'light'}.png")
    asked = [event["request"]["url"] for event in opened.happened("Network.requestWillBeSent")]
    assert asked == [page.as_uri()]
    assert opened.happened("Log.entryAdded") + opened.happened("Runtime.consoleAPICalled") == []
    assert opened.happened("Runtime.exceptionThrown") == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    plots = opened.evaluate(PLOTS)
    assert len(plots) == 6 + 5 + 2  # with energy, without, sensitivity and power
    assert all(min(sizes) > 40 for sizes in plots)


def test_plots_follow_light_and_dark(opened: Any, page: Path) -> None:
    found = []
    for dark in (False, True):
        opened.open(page, width=800, height=600, dark=dark)
        found.append(opened.evaluate(COLOURS))
    light, dark_ones = found
    assert light["paper"] != dark_ones["paper"]
    for colours in found:
        assert colours["label"] == colours["ink"] != colours["paper"]
    assert set(light["series"]) & set(dark_ones["series"]) <= {"none"}


def test_a_link_to_a_record_opens_it(opened: Any, page: Path) -> None:
    opened.open(page, width=800, height=600)
    opened.evaluate("document.querySelector('tbody th a').click()")
    shown = "[...document.querySelectorAll('details')].filter(one => one.open).map(one => one.textContent.length > 500)"
    assert opened.evaluate(shown) == [True]
