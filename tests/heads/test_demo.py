"""Trained token classifiers and multi-label classifiers: scores, INT8, and planted faults in their bundles."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from transformers import pipeline

import toolchain
from tests.conftest import Once
from toolchain.base.files import sha256_file
from toolchain.bundle import MANIFEST, digest_of
from toolchain.bundle.build import build
from toolchain.data.demo import MODELS
from toolchain.data.demo.make.names import LABELS, TAGS
from toolchain.diagnose.gate import compare_results
from toolchain.diagnose.probe import open_probe_graph
from toolchain.diagnose.verify import verify
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.compare import FAILS, PASSES
from toolchain.recipe import Recipe

ROWS = 200


# The other head has the same path, so its tests are left to the slow ones. So is a fault like another one.
HEADS = ["tokens", pytest.param("multilabel", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def export(once: Once) -> Callable[[str], Path]:
    """Return a bundle of a head's demo model that has the export alone; read only."""

    def find(head: str) -> Path:
        recipe = {"model": f"demo-{head}", "precision": "fp32"}
        return once(
            f"export-demo-{head}",
            lambda folder: build(Recipe.make(recipe | {"output": str(folder)}), steps=("export",), engine=False),
        )

    return find


@dataclass(frozen=True)
class Fault:
    """A node that is put before the logits: its operator, its second input, and its attributes."""

    operator: str
    value: Any
    attributes: dict[str, int] = field(default_factory=dict)

    def plant(self, bundle: Path, target: Path) -> Path:
        """Return a copy of a bundle with the node in its graph, and digests as a build writes them."""
        shutil.copytree(bundle, target, ignore=shutil.ignore_patterns("results"))
        model = onnx.load(target / "model.onnx")
        last = next(node for node in model.graph.node if "logits" in node.output)
        last.output[:] = ["sound" if name == "logits" else name for name in last.output]
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(self.value), "fault"))
        model.graph.node.append(helper.make_node(self.operator, ["sound", "fault"], ["logits"], **self.attributes))
        onnx.save(model, target / "model.onnx")
        manifest = json.loads((target / MANIFEST).read_text())
        manifest["artefacts"]["model.onnx"] = sha256_file(target / "model.onnx")
        manifest["sha256"] = digest_of(manifest)
        (target / MANIFEST).write_text(json.dumps(manifest))
        return target


def dead(names: tuple[str, ...], *labels: str) -> Any:
    return np.float32([-100 * (name in labels) for name in names])


def swapped(names: tuple[str, ...], one: str, other: str) -> list[int]:
    """Return the order of outputs with two of them exchanged."""
    return [names.index({one: other, other: one}.get(name, name)) for name in names]


LAST_AXIS = {"axis": -1}
SCHEME = [TAGS.index(tag.translate(str.maketrans("BI", "IB"))[:1] + tag[1:]) for tag in TAGS]
FAULTS = {
    ("tokens", "tags shifted by one"): Fault("Pad", np.int64([0, 1, 0, 0, -1, 0])),
    ("tokens", "a dead tag"): Fault("Add", dead(TAGS, "B-TOWN", "I-TOWN")),
    ("tokens", "begins and continuations swapped"): Fault("Gather", SCHEME, LAST_AXIS),
    ("multilabel", "a dead label"): Fault("Add", dead(LABELS, "TOWN")),
    ("multilabel", "labels swapped"): Fault("Gather", swapped(LABELS, "PERSON", "THING"), LAST_AXIS),
}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "name"), FAULTS)
def test_a_planted_fault_is_found(export: Callable[[str], Path], tmp_path: Path, head: str, name: str) -> None:
    faulty = FAULTS[head, name].plant(export(head), tmp_path / "bundle")
    assert not verify(open_probe_graph(faulty, {"file": "model.onnx", "device": "cpu"}))["passed"]
    result = toolchain.evaluate(faulty, file="model.onnx", device="cpu", limit=ROWS)
    assert result["agreement"]["label_agreement"] < 0.95
    (compared,) = compare_results([faulty], Recipe(max_drop=1), tell=lambda line: None)
    assert (compared["verdict"], compared["drop_points"] > 5) == (FAILS, True)
    if "dead" in name:
        assert result["per_label"]["TOWN"]["recall"] < 0.1 < 0.8 < result["per_label"]["PERSON"]["recall"]


@pytest.mark.parametrize("head", HEADS)
def test_the_sound_bundle_passes(export: Callable[[str], Path], tmp_path: Path, head: str) -> None:
    sound = Path(shutil.copytree(export(head), tmp_path / "bundle"))
    assert verify(open_probe_graph(sound, {"file": "model.onnx", "device": "cpu"}))["passed"]
    result = toolchain.evaluate(sound, file="model.onnx", device="cpu")
    assert 0.8 < result["metrics"][result["primary"]] < 0.97
    assert result["agreement"]["label_agreement"] == 1
    (compared,) = compare_results([sound], Recipe(max_drop=1), tell=lambda line: None)
    assert (compared["verdict"], compared["drop_points"]) == (PASSES, 0)


def test_tags_of_another_scheme_are_refused_with_their_row(export: Callable[[str], Path], tmp_path: Path) -> None:
    """IOB1 begins an entity with I, and with B only behind another one of its type."""
    rows = (MODELS["demo-tokens"].parent / "validation.tsv").read_text().splitlines()[:50]
    (tmp_path / "validation.tsv").write_text("\n".join(rows).replace("B-", "I-"))
    with pytest.raises(InputError, match=r"validation.tsv: row \d+, word \d+ has the tag 'I-.*Convert the tags to"):
        toolchain.evaluate(export("tokens"), file="model.onnx", data=tmp_path, device="cpu")


def test_a_server_of_tags_is_not_evaluated(export: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match=r"^--backend service: a server that runs a token classifier returns ENTITIES"):
        toolchain.evaluate(export("tokens"), backend="service", url="http://127.0.0.1:1")


def test_entities_of_fp32_are_those_of_transformers_pipeline(export: Callable[[str], Path]) -> None:
    rows = (MODELS["demo-tokens"].parent / "validation.tsv").read_text().splitlines()[1 : ROWS + 1]
    texts = [row.split("\t")[0] for row in rows]
    pipe = pipeline(
        "token-classification", str(MODELS["demo-tokens"]), aggregation_strategy="first", device="cpu", dtype="float32"
    )
    with toolchain.load(export("tokens"), file="model.onnx", device="cpu") as tagger:
        answers = tagger(texts)
    for answer, expected in zip(answers, pipe(texts), strict=True):
        assert [(one["label"], one["start"], one["end"]) for one in answer["entities"]] == [
            (one["entity_group"], one["start"], one["end"]) for one in expected
        ]
        scores = [one["score"] for one in expected]
        np.testing.assert_allclose([one["score"] for one in answer["entities"]], scores, atol=1e-5)
    assert sum(len(answer["entities"]) for answer in answers) > ROWS / 2


@pytest.mark.slow
@pytest.mark.parametrize("head", ["tokens", "multilabel"])
def test_int8_loses_at_most_half_a_point(export: Callable[[str], Path], tmp_path: Path, head: str) -> None:
    target = shutil.copytree(export(head), tmp_path / "bundle")
    toolchain.build(model=f"demo-{head}", precision="int8", calib_method="auto", device="cpu", output=target)
    files = ("model.onnx", "model.int8.onnx", "model.int8.cpu.onnx")
    results = [toolchain.evaluate(target, file=file, device="cpu") for file in files]
    fp32, *others = (100 * result["metrics"][result["primary"]] for result in results)
    assert all(points > fp32 - 0.5 for points in others)
