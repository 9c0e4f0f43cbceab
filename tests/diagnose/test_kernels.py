"""explain --target shows the kernels of both precisions, side by side, and answers why INT8 is not faster."""

import json
import shutil
import sys

import pytest

from toolchain.cli import main
from toolchain.diagnose.kernels import answer, explain_target
from toolchain.errors import UsageError
from toolchain.profile.roofline.gpus import find_gpu

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")


@pytest.fixture(scope="module")
def explained(typed_bundles, once):
    """Return the record for the INT8 bundle and a T4, and the bundle that keeps it."""
    bundle = once("explained", lambda folder: shutil.copytree(typed_bundles["int8"], folder, dirs_exist_ok=True))
    return explain_target(bundle, {"target": "t4", "batch_size": "8", "seq_len": "64"}), bundle


def test_both_precisions_are_compiled_as_asked(explained):
    record, bundle = explained
    assert [(one["precision"], one["artefact"], one["not_as_asked"]) for one in record["graphs"]] == [
        ("fp16", "made of model.onnx", []),
        ("int8", "made of model.onnx", []),
    ]
    assert (record["sm"], record["gpu"], record["batch"], record["length"]) == (75, "NVIDIA T4", 8, 64)
    assert json.loads((bundle / "results/kernels/t4.json").read_text()) == record
    digests = json.loads((bundle / "bundle.json").read_text())["artefacts"]
    for one in record["graphs"]:
        assert one["made_from"] == {name: digests[name] for name in one["made_from"]}
        assert {"model.onnx", "calibration.json"} <= one["made_from"].keys()


def test_every_kernel_has_its_part_of_the_encoder(explained):
    for one in explained[0]["graphs"]:
        gemms = [kernel for kernel in one["kernels"] if kernel["precision"]]
        for kernel in gemms:
            part = "head" if "classifier" in " ".join(kernel["nodes"]) else "feed_forward"
            assert kernel["part"] == ("attention" if ".attention." in " ".join(kernel["nodes"]) else part)
        assert {kernel["layer"] for kernel in gemms if kernel["part"] != "head"} == {0, 1}
        assert one["us"] == pytest.approx(sum(group["us"] for group in one["groups"]))
        assert one["bytes"] == sum(group["bytes"] for group in one["groups"])


def test_the_answer_has_the_figures_of_both(explained):
    half, integer = explained[0]["graphs"]
    text = explained[0]["answer"]
    assert text.startswith("By the bounds of its kernels INT8 is ")
    assert f"{half['us'] / integer['us']:.2f} times" in text
    for figure in (half["us"], integer["us"]):
        assert f"{figure:,.0f}" in text
    slower = {**integer, "us": 2 * half["us"]}
    assert "not faster than FP16 (0.50 times)" in answer([half, slower], find_gpu("t4"))
    assert "has no INT8 graph" in answer([half], find_gpu("t4"))


def test_the_tables_fit_80_columns(explained, capsys):
    from toolchain.cli.show.kernels import explained_target

    explained_target(explained[0])
    shown = capsys.readouterr().out
    tables = [line.rstrip() for line in shown.splitlines() if not line.startswith(("By the bounds", "by:"))]
    assert max(map(len, tables)) <= 80
    assert "attention.v_lin" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "t4,l4"}, "names several GPUs"),
        ({"target": "h100"}, "does not compile for this GPU"),
        ({"target": "rtx3090"}, "no data sheet of this GPU. Give --target sm86"),
        ({"target": "t4", "batch_size": "1,8,32"}, "compiled for a single shape"),
    ],
)
def test_what_cannot_be_explained_is_refused(typed_bundles, changes, message):
    with pytest.raises(UsageError, match=message):
        explain_target(typed_bundles["int8"], changes)


def test_without_the_library_the_command_ends_with_4_and_how_to_install_it(typed_bundles, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    assert main(["explain", str(typed_bundles["int8"]), "--target", "t4"]) == 4
    assert "pip install 'encoder-toolchain[rtx]'" in capsys.readouterr().err
