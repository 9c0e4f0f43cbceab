"""The page shows the record of `explain --target` as a picture with the answer."""

import json

from toolchain.report.html import html
from toolchain.report.inputs import Material, current_kernels, find_material
from toolchain.report.kernel_plots import kernels


def group(kind, us):
    return {"part": "attention", "kind": kind, "kernels": 1, "bytes": 8, "operations": 0, "us": us, "bound": "memory"}


def compiled(precision, gemm, rest):
    groups = [group("gemm", gemm), group("elementwise", rest)]
    return {
        "artefact": "a",
        "precision": precision,
        "kernels": [],
        "groups": groups,
        "bytes": 16,
        "us": gemm + rest,
        "not_as_asked": [],
    }


RECORD = {
    "bundle": "b",
    "target": "t4",
    "sm": 75,
    "gpu": "NVIDIA T4",
    "source": "sheet",
    "compiler": "TensorRT-RTX 1.7",
    "batch": 32,
    "length": 128,
    "graphs": [compiled("fp16", 40.0, 20.0), compiled("int8", 20.0, 19.0)],
    "answer": "INT8 is <at best> 1.54 times as fast.",
    "created": "2026-11-27T00:00:00+00:00",
}


def test_the_picture_has_a_bar_of_each_kind_for_each_precision():
    plot = kernels({**RECORD, "file": "t4.json"}, name="k")
    assert "fp16: 60 µs, gemm 40, elementwise 20; int8: 39 µs, gemm 20, elementwise 19" in plot.svg
    assert plot.svg.count("series-0") >= 2
    assert plot.svg.count("series-1") >= 2


def test_a_record_of_a_graph_that_was_built_again_is_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / "kernels").mkdir()
    graphs = [{**one, "made_from": {"model.onnx": "a"}} for one in RECORD["graphs"]]
    (tmp_path / "kernels/t4.json").write_text(json.dumps({**RECORD, "graphs": graphs}))
    for artefacts, kept in (({"model.onnx": "a"}, 1), (None, 1), ({"model.onnx": "b"}, 0), ({}, 0)):
        assert len(list(current_kernels(tmp_path, artefacts))) == kept
    assert "t4.json: left out, because the bundle was built again" in caplog.text
    (tmp_path / "kernels/t4.json").write_text(json.dumps(RECORD))  # of an earlier version
    assert len(list(current_kernels(tmp_path, {"model.onnx": "b"}))) == 1


def test_the_page_finds_the_record_in_a_folder_of_results_and_escapes_its_texts(result, tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/t4.json").write_text(json.dumps(RECORD))
    (tmp_path / "kernels/broken.json").write_text("[]")
    (tmp_path / "ort.json").write_text(json.dumps(result))
    found = find_material([tmp_path])
    assert [one["target"] for one in found.kernels] == ["t4"]
    page = html(Material([], kernels=found.kernels))
    assert "Kernels for t4" in page
    assert "INT8 is &lt;at best&gt; 1.54 times" in page
