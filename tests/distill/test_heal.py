"""`heal` on a tiny bundle: what stays, what changes, and what an interruption leaves."""

import json
import shutil

import pytest

from toolchain.api import run_build
from toolchain.base.files import sha256_file
from toolchain.base.tensors import Range
from toolchain.bundle import open_bundle
from toolchain.bundle.healed import FILE
from toolchain.bundle.learnt import OF_HEAL, learnt_digests
from toolchain.distill import heal as module
from toolchain.distill.heal import heal
from toolchain.errors import GateError, InputError, UsageError
from toolchain.evaluation.compare import UNKNOWN
from toolchain.evaluation.learnt_rows import learnt_rows
from toolchain.evaluation.target import find_target
from toolchain.heads.distance import Distance
from toolchain.int8.calibrate import Calibration, read_calibration, write_calibration


def digests(folder):
    return dict(open_bundle(folder).manifest["artefacts"])


@pytest.fixture
def gates(monkeypatch):
    """The verdict of every gate; a gate itself has tests of its own, and times the bundle."""
    verdicts = [UNKNOWN]

    def gate(bundle, recipe, **_):
        open_bundle(bundle)
        return [{"candidate_name": "ort int8.cpu", "verdict": verdicts[0], "drop_points": 1.0}], {"next": "serve"}

    monkeypatch.setattr(module, "gate", gate)
    monkeypatch.setattr(module, "RATE", 1e-4)  # a random model has much to learn, and few steps here
    return verdicts


@pytest.fixture(scope="module")
def clipped(begun, once):
    """A bundle whose ranges are a third of what they should be, and beside it its first ranges: read only."""

    def fill(home):
        begun("int8", home / "bundle")
        known = read_calibration(home / "bundle/calibration.json")
        ranges = {name: Range(one.amax / 3, one.low / 3, one.high / 3) for name, one in known.ranges.items()}
        for name, found in (("first", known.ranges), ("third", ranges)):
            (home / name).mkdir()
            write_calibration(home / name, Calibration(found, known.smoothing, known.about))
        run_build({"calibration": str(home / "third/calibration.json")}, bundle=home / "bundle")

    return once("clipped", fill)


@pytest.fixture
def bundle(clipped, tmp_path):
    return shutil.copytree(clipped / "bundle", tmp_path / "bundle")


def assert_nearer(record):
    """Each graph is nearer to FP32 than before."""
    assert record["distance"].keys() == {"model.int8.onnx", "model.int8.cpu.onnx"}
    for one in record["distance"].values():
        assert Distance(**one["after"]).rank < Distance(**one["before"]).rank


def stop_after(steps):
    """Return a stand-in for the loop's advance that interrupts it."""
    from toolchain.distill import loop

    advance = loop._Clock.advance

    def counted(self, loss):
        advance(self, loss)
        if self._done["step"] == steps:
            raise KeyboardInterrupt

    return counted


def test_both_graphs_are_healed_the_reference_stays_and_a_build_has_nothing_to_do(bundle, gates):
    before = digests(bundle)
    found = heal({}, bundle, steps=40)
    after, record = digests(bundle), found["heal"]
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {FILE, OF_HEAL, "model.int8.onnx", "model.int8.cpu.onnx"}
    assert record["steps"] == 40
    assert len(learnt_digests(open_bundle(bundle))) == record["rows"]
    assert_nearer(record)
    int8, fp32 = (find_target({"precision": name, "device": "cpu"}, bundle) for name in ("int8", "fp32"))
    train = int8.resolved.rows("train")
    assert learnt_rows(int8, train) == len(train) - record["rows_left_out"] - record["held_out"]
    assert learnt_rows(int8, int8.resolved.rows("validation")) == 0
    assert learnt_rows(fp32, train) == 0  # has the checkpoint's weights
    of_torch = find_target({"precision": "int8", "backend": "torch", "device": "cpu"}, bundle)
    assert learnt_rows(of_torch, train) == 0  # PyTorch quantizes the checkpoint
    assert not list(bundle.parent.glob(".*"))
    done, _ = run_build({}, bundle=bundle)
    assert done["up_to_date"]
    assert digests(bundle) == after


def test_without_a_length_the_weights_are_rounded_anew_and_not_trained(begun, tmp_path, gates):
    bundle = tmp_path / "bundle"
    begun("int8", bundle)
    record = heal({}, bundle)["heal"]
    assert (record["steps"], record["loss"], record["rounding"]["gemms"]) == (0, None, 12)
    assert record["rows"] == record["rounding"]["rows"] == len(learnt_digests(open_bundle(bundle)))
    assert_nearer(record)


def test_an_interrupted_run_leaves_the_bundle_and_goes_on_to_the_same_weights(bundle, gates, tmp_path, monkeypatch):
    from toolchain.distill import loop, state

    whole = shutil.copytree(bundle, tmp_path / "whole")
    heal({}, whole, steps=40)
    before = digests(bundle)
    with monkeypatch.context() as patched:
        patched.setattr(state, "SAVE_EVERY_S", 0.0)
        patched.setattr(loop._Clock, "advance", stop_after(4))
        with pytest.raises(KeyboardInterrupt):
            heal({}, bundle, steps=40)
    assert digests(bundle) == before
    told = []
    heal({}, bundle, steps=40, tell=told.append)
    assert any(line.startswith("going on after step") for line in told)
    assert sha256_file(bundle / FILE) == sha256_file(whole / FILE)


def test_a_gate_that_passes_needs_no_healing_and_the_state_of_other_graphs_is_removed(bundle, gates):
    gates[0] = "passes"
    (bundle.parent / f".{bundle.name}.heal-{'0' * 16}").touch()
    before = digests(bundle)
    assert heal({}, bundle, steps=2)["heal"] is None
    assert digests(bundle) == before
    assert not list(bundle.parent.glob(".*"))


def test_healing_that_brings_nothing_leaves_the_bundle(bundle, gates, monkeypatch):
    monkeypatch.setattr(module, "RATE", 0.3)
    before = digests(bundle)
    with pytest.raises(GateError, match="no nearer to FP32"):
        heal({}, bundle, steps=3)
    assert digests(bundle) == before
    assert not list(bundle.parent.glob(".*"))  # so that the same call with more steps begins


def test_one_graph_that_comes_no_nearer_leaves_the_bundle(bundle, gates, monkeypatch):
    real = module._logits
    # The graph for CPUs becomes FP32's equal, so the sum of both distances falls.
    after = {"model.int8.cpu.onnx": "model.onnx", "model.int8.onnx": "model.int8.onnx"}
    monkeypatch.setattr(
        module,
        "_logits",
        lambda file, tokens: real(file if file.parent == bundle else bundle / after[file.name], tokens),
    )
    monkeypatch.setattr(module, "prove", lambda *_: None)
    before = digests(bundle)
    with pytest.raises(GateError, match=r"bundle/model\.int8\.onnx: healing brought INT8 no nearer to FP32"):
        heal({}, bundle)
    assert digests(bundle) == before


def test_the_current_folder_is_refused_before_the_training(bundle, gates, monkeypatch):
    monkeypatch.chdir(bundle)
    with pytest.raises(UsageError, match=r"cannot be replaced\. Call heal from another folder"):
        heal({}, bundle, steps=2)
    assert not list(bundle.parent.glob(".*"))


@pytest.mark.slow
def test_new_ranges_drop_healed_weights_with_a_warning(bundle, clipped, gates, caplog):
    heal({}, bundle, steps=40)
    run_build({"calibration": str(clipped / "first/calibration.json")}, bundle=bundle)
    assert FILE not in digests(bundle)
    assert "healed weights" in caplog.text


def test_what_cannot_be_healed_says_so(begun, tmp_path, gates):
    with pytest.raises(InputError, match="not in INT8"):
        heal({}, begun("fp32", tmp_path / "fp32"), steps=2)
    with pytest.raises(UsageError, match="--steps 0"):
        heal({}, begun("int8", tmp_path / "int8"), steps=0)


@pytest.mark.slow
def test_the_command_heals_and_judges(bundle, toolchain):
    found = json.loads(toolchain("heal", bundle, "--steps", 400, "--max-drop", 0, "--force", "--json").stdout)
    assert [one["candidate_name"] for one in found["gate"]] == [one["candidate_name"] for one in found["before"]]
