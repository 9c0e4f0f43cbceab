"""The page as a parser reads it: well-formed, nothing from the network, and every number from a file."""

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolchain.evaluation.results import save_predictions
from toolchain.heads.predictions import Predictions
from toolchain.report.html import html
from toolchain.report.inputs import Material

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "<script>alert(1)</script>&\"'"


class Page(HTMLParser):
    """Every element with its attributes, its own text and its ancestors; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert not self.open, [one["tag"] for one in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", "within": [*self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        for element in self.open[-1:]:
            element["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self.elements
            if one["tag"] == tag and all(one.get(key) == value for key, value in attributes.items())
        ]


@pytest.fixture
def records(reference: Any, result: Any, measured: Any, tuned: Any, power: Any) -> Material:
    return Material([reference, result, measured], [tuned], [power])


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Records -> their page: a page takes a second."""
    return {}


@pytest.fixture
def page(records: Material, pages: dict[str, str]) -> Page:
    key = repr(records)
    if key not in pages:
        pages[key] = html(records)
    return Page(pages[key])


def at(record: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def test_the_page_loads_nothing_from_the_network(records: Material, page: Page) -> None:
    text = html(records)
    assert not re.search(r"https?:|//\w|url\((?!#)|@import", text)
    assert {one["tag"] for one in page.elements} & {"script", "link", "img", "iframe", "object"} == set()
    assert all(one[name].startswith("#") for one in page.elements for name in ("href", "src") if name in one)


def test_the_policy_allows_its_own_style_and_nothing_else(page: Page) -> None:
    (policy,) = (one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    (style,) = page.all("style")
    digest = base64.b64encode(hashlib.sha256(style["text"].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not any("style" in one for one in page.elements)


def test_ids_are_its_own_and_links_lead_somewhere(page: Page) -> None:
    ids = [one["id"] for one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in page.elements if "href" in one} <= set(ids)


def test_every_number_is_in_the_file_that_it_names(records: Material, page: Page) -> None:
    files = {one["file"]: one for one in (*records.results, *records.powers)}
    numbers = [one for one in page.all("data") if one["data-source"] in files and " " not in one["data-key"]]
    assert len(numbers) > 30
    for one in numbers:
        value = at(files[one["data-source"]], one["data-key"])
        assert one["value"] == str(value)
        shown = re.fullmatch(r"([\d.,]+)( ?%| J| mJ)?", one["text"])
        assert shown, one["text"]
        scale = {" J": 1, " mJ": 1e3, "%": 100}.get(shown[2], 1)
        assert float(shown[1].replace(",", "")) == pytest.approx(scale * value, rel=0.01)


def test_numbers_made_of_two_files_name_both(page: Page) -> None:
    (ratio,) = (one for one in page.all("data") if one["data-key"] == "throughput_per_s, divided")
    assert ratio["text"] == "3 times"
    assert ratio["data-source"] == "results/ort.json and results/torch.json"


def test_without_all_tasks_there_is_no_glue_score_and_the_missing_are_named(page: Page) -> None:
    shown = " ".join(one["text"] for one in page.all("span"))
    assert shown.count("1 of 9 tasks measured") == 3
    points = [one["text"] for one in page.all("data", **{"data-key": "metrics.accuracy and metrics.f1"})]
    assert points == ["69.3", "69.1", "69.1"]  # the mean of accuracy and f1 of the one task, times 100
    assert "cola, mrpc, stsb, qqp, mnli, qnli, rte, wnli" in [one["text"] for one in page.all("span")]


def test_no_cell_has_a_number_without_a_source(page: Page) -> None:
    cells = [
        one
        for one in page.elements
        if one["tag"] in ("td", "span") and "figures" in str([outer.get("class") for outer in one["within"]])
    ]
    assert cells
    assert [one["text"] for one in cells if re.search(r"\d", one["text"])] == []


def test_unmeasured_values_have_a_reason_and_are_never_0(page: Page) -> None:
    assert "utilisation" in {one.get("data-label") for one in page.all("td")}
    reasons = {one["id"]: one["text"] for one in page.all("li") if "-why-" in one.get("id", "")}
    assert "energy was not measured: it was not requested (--energy)" in reasons.values()
    assert "the result has no roofline" in reasons.values()
    absent = [one for one in page.all("span", **{"class": "absent"}) if one["text"] == "n/a"]
    assert len(absent) >= 2 + 3 + 3  # energy of two, utilisation and labels of three
    assert not [one for one in page.all("data") if one["value"] in ("None", "nan", "0.0")]


def test_utilisation_is_shown_where_there_is_a_roofline(result: dict[str, Any]) -> None:
    page = Page(html(Material([result | {"roofline": {"model_flop_utilisation": 0.42}}])))
    (found,) = page.all("data", **{"data-key": "roofline.model_flop_utilisation"})
    assert found["text"] == "42.0%"


def test_partial_energy_has_a_remark(page: Page) -> None:
    (found,) = (one for one in page.all("li") if one["text"].startswith("a part of the energy is missing"))
    assert "this machine lacks a RAPL counter for it" in found["text"]


def test_energies_of_other_components_have_plots_and_best_figures_of_their_own(measured: dict[str, Any]) -> None:
    """A processor uses less than a board in this example: neither is called the least of both."""
    package = copy.deepcopy(measured) | {"backend": "ort", "variant": "int8.cpu", "file": "results/ort.json"}
    parts = package["energy"]["components"]
    parts["cpu_package"], parts["gpu_board"] = parts["gpu_board"], parts["cpu_package"]
    package["energy"] |= {"per_inference_j": 0.01, "ci95": [0.009, 0.011]}
    page = Page(html(Material([measured, copy.deepcopy(measured) | {"variant": "fp8", "file": "b"}, package])))
    titles = [one["text"] for one in page.all("title") if "against energy" in one["text"]]
    assert titles == [f"accuracy against energy per row, J ({name})" for name in ("gpu_board", "cpu_package")]
    board, processor = (one["text"] for one in page.all("desc") if "at 0.3" in one["text"] or "at 0.01" in one["text"])
    assert ("trt" in board, "ort" in board) == (True, False)
    assert ("trt" in processor, "ort" in processor) == (False, True)
    keys = [one for one in page.all("data", **{"data-key": "energy.per_inference_j, divided"})]
    assert [one for one in keys if one["data-source"].startswith("results/ort.json")] == []  # 3 % of nothing alike
    alone = Page(html(Material([measured, package | {"energy": measured["energy"]}])))
    assert [one["text"] for one in alone.all("title") if "energy" in one["text"]] == [
        "accuracy against energy per row, J"
    ]


@pytest.mark.parametrize("key", ["model", "variant", "backend", "file", "command"])
def test_texts_from_outside_are_escaped(result: dict[str, Any], key: str) -> None:
    page = Page(html(Material([result | {key: EVIL}])))
    assert page.all("script") == []
    assert EVIL in "".join(one["text"] for one in page.elements)


def test_texts_from_outside_are_escaped_in_tune_and_power(tuned: dict[str, Any], power: dict[str, Any]) -> None:
    named = [one | {"name": f"{EVIL}{at}"} for at, one in enumerate(tuned["products"])]
    page = Page(html(Material([], [tuned | {"products": named, "keep": [EVIL]}], [power | {"command": [EVIL]}])))
    assert page.all("script") == []


def test_the_page_has_the_complete_records(records: Material, page: Page) -> None:
    found = [json.loads(one["text"]) for one in page.all("pre", **{"class": "record"})]
    assert found == [*records.results, *records.tuned, *records.powers]


def test_tables_headings_and_plots_have_texts_for_screen_readers(page: Page) -> None:
    assert len(page.all("h1")) == 1
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    plots = page.all("svg")
    assert len(plots) == 6 + 2  # three of quality, latency, padding, lengths; sensitivity, power
    texts = {one["id"]: one["text"] for one in page.elements if "id" in one}
    assert all(texts[name].strip() for one in plots for name in one["aria-labelledby"].split())


def test_it_is_the_same_each_time(records: Material) -> None:
    assert html(records) == html(records)


def test_results_of_other_rows_have_a_section_of_their_own(result: dict[str, Any]) -> None:
    page = Page(html(Material([result, result | {"task": "mrpc", "data_sha256": "1" * 32, "file": "m.json"}])))
    assert [one["text"] for one in page.all("h2")][1:3] == [
        "some-model on sst2 validation, 872 rows",
        "some-model on mrpc validation, 872 rows",
    ]


def kept(folder: Path, result: dict[str, Any], name: str, wrong: int) -> dict[str, Any]:
    """Return the result with predictions of 872 rows, the first `wrong` of which are wrong."""
    references = np.arange(872) % 2
    predicted = np.where(np.arange(872) < wrong, 1 - references, references)
    digest = save_predictions(
        folder / f"{name}.npz", Predictions(references, predicted, np.zeros((872, 2), np.float32))
    )
    metrics = {"accuracy": 1 - wrong / 872, "f1": 0.5}
    return result | {"predictions": digest, "metrics": metrics, "file": str(folder / f"{name}.json"), "variant": name}


def first_card(*results: dict[str, Any]) -> str:
    found = re.search(r'<ul class="cards".*?</li>', html(Material(list(results))), re.DOTALL)
    assert found
    return " ".join(re.sub("<[^>]*>", " ", found[0]).split())


def test_nothing_is_called_highest_whose_difference_is_not_resolved(tmp_path: Path, result: dict[str, Any]) -> None:
    one, near, far = (kept(tmp_path, result, name, wrong) for name, wrong in (("a", 100), ("b", 102), ("c", 160)))
    assert first_card(one, far).startswith("highest accuracy")
    assert first_card(one, near).startswith("accuracy: no resolved difference")
    assert "from 1 of the 2 others includes 0" in first_card(one, near, far)
    assert first_card(one).startswith("accuracy 0.88")
    assert "differences not tested, because predictions are missing" in first_card(one, result)
