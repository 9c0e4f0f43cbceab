"""`heal` on a tiny bundle: what stays, what changes, and what an interruption leaves."""

import json
import os
import random
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

from toolchain.api import run_build
from toolchain.base.files import sha256_file
from toolchain.base.tensors import Range
from toolchain.bundle import open_bundle, writer
from toolchain.bundle.healed import FILE, GRAPHS, healed_graphs
from toolchain.bundle.learnt import OF_HEAL, learnt_digests
from toolchain.diagnose.gate import Judged
from toolchain.distill import accept
from toolchain.distill import heal as module
from toolchain.distill.heal import heal
from toolchain.errors import GateError, InputError, UsageError
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN
from toolchain.evaluation.learnt_rows import learnt_rows
from toolchain.evaluation.target import find_target
from toolchain.heads.distance import Distance
from toolchain.int8.calibrate import Calibration, read_calibration, write_calibration


def digests(folder):
    return dict(open_bundle(folder).manifest["artefacts"])


@pytest.fixture
def gates(monkeypatch):
    """The verdicts of each gate, by graph, without and with healed weights; a gate itself has tests of its own."""
    verdicts = {name: [UNKNOWN, UNKNOWN] for name in GRAPHS}

    def compare_graphs(bundle, recipe, **_):
        made = open_bundle(bundle).manifest["steps"].get("heal", {"record": {"graphs": []}})["record"]["graphs"]
        return [
            Judged(
                {"artefact": {"file": name}},
                {"metric": "f1", "drop_points": 1.0 + (name in made), "verdict": verdicts[name][name in made]},
            )
            for name in GRAPHS
        ]

    monkeypatch.setattr(module, "compare_graphs", compare_graphs)
    monkeypatch.setattr(module, "advise_deployment", lambda *_: {"next": "serve"})
    monkeypatch.setattr(module, "LEAST_HELD_OUT", 7)  # of 60 train rows
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


def assert_only_the_graph_for_cpus_changed(bundle, before, told):
    """One graph is healed, the other is that of before to the byte, and a build, and rows to evaluate, know of it."""
    after = digests(bundle)
    assert {name for name in after if before.get(name) != after[name]} == {FILE, OF_HEAL, "model.int8.cpu.onnx"}
    assert sum(line.startswith("model.int8.onnx keeps its weights") for line in told) == 1
    assert not list(bundle.parent.glob(".*"))
    done, _ = run_build({}, bundle=bundle)
    assert done["up_to_date"]
    counts = {}
    for name in GRAPHS:
        target = find_target({"precision": "int8", "device": "cpu", "file": name}, bundle)
        counts[name] = learnt_rows(target, target.resolved.rows("train"))
    assert (counts["model.int8.onnx"], counts["model.int8.cpu.onnx"] > 0) == (0, True)
    unknown = replace(target, file=None)  # what a server runs
    assert learnt_rows(unknown, unknown.resolved.rows("train")) == counts["model.int8.cpu.onnx"]


def only_the_graph_for_cpus_is_fp32s_equal(bundle):
    """Return a stand-in for `logits_in`, which gives the other new graph the logits that it had."""
    real, instead = accept.logits_in, {"model.int8.cpu.onnx": "model.onnx", "model.int8.onnx": "model.int8.onnx"}
    return lambda file, tokens: real(file if file.parent == bundle else bundle / instead[file.name], tokens)


def stop(*_):
    raise KeyboardInterrupt


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
    assert len(learnt_digests(open_bundle(bundle))) == record["rows"] + record["rounding"]["chosen_on"]
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
    assert record["rows"] == record["rounding"]["rows"]
    # The rows that chose the bias are learnt from too.
    assert len(learnt_digests(open_bundle(bundle))) == record["rows"] + record["rounding"]["chosen_on"]
    assert record["rounding"]["bias"] == min(record["rounding"]["distances"], key=record["rounding"]["distances"].get)
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
    assert any(line.startswith("resuming an interrupted run") for line in told)
    assert sha256_file(bundle / FILE) == sha256_file(whole / FILE)


def test_a_gate_that_passes_needs_no_healing_and_the_state_of_other_graphs_is_removed(bundle, gates):
    gates |= {name: [PASSES, PASSES] for name in GRAPHS}
    (bundle.parent / f".{bundle.name}.heal-{'0' * 16}").touch()
    before = digests(bundle)
    assert heal({}, bundle, steps=2)["heal"] is None
    assert digests(bundle) == before
    assert not list(bundle.parent.glob(".*"))


def test_healing_that_brings_nothing_leaves_the_bundle(bundle, gates, monkeypatch):
    monkeypatch.setattr(module, "RATE", 30.0)
    before, told = digests(bundle), []
    with pytest.raises(GateError, match="logits come no nearer to FP32"):
        heal({}, bundle, steps=3, tell=told.append)
    assert not [line for line in told if "keeps its weights" in line]  # the error says it
    assert digests(bundle) == before
    assert not list(bundle.parent.glob(".*"))  # so that the same call with more steps begins


def test_a_graph_that_comes_no_nearer_keeps_its_weights(bundle, gates, monkeypatch):
    before = digests(bundle)
    monkeypatch.setattr(accept, "logits_in", only_the_graph_for_cpus_is_fp32s_equal(bundle))
    monkeypatch.setattr(module, "prove", lambda *_: None)
    told = []
    record = heal({}, bundle, tell=told.append)["heal"]
    assert record["graphs"] == ["model.int8.cpu.onnx"]
    assert "logits come no nearer to FP32" in record["kept"]["model.int8.onnx"]
    assert_only_the_graph_for_cpus_changed(bundle, before, told)


def test_a_graph_whose_verdict_would_get_worse_keeps_its_weights(bundle, gates, monkeypatch):
    gates["model.int8.onnx"] = [UNKNOWN, FAILS]
    monkeypatch.setattr(module, "prove", lambda *_: None)
    before, told = digests(bundle), []
    record = heal({}, bundle, tell=told.append)["heal"]
    why = "f1 would drop 2.00 points (fails) instead of 1.00 (cannot tell)"
    assert record["kept"] == {"model.int8.onnx": why}
    assert f"model.int8.onnx keeps its weights: {why}" in told
    assert_only_the_graph_for_cpus_changed(bundle, before, told)
    after, nearer = digests(bundle), only_the_graph_for_cpus_is_fp32s_equal(bundle)
    swapped = dict(zip(GRAPHS, reversed(GRAPHS), strict=True)) | {"model.onnx": "model.onnx"}
    monkeypatch.setattr(accept, "logits_in", lambda file, tokens: nearer(file.with_name(swapped[file.name]), tokens))
    with pytest.raises(GateError, match=r"bundle: model\.int8\.cpu\.onnx: .*The bundle is unchanged"):
        heal({"seed": 1}, bundle)  # a graph that was healed before cannot keep those weights beside others
    assert digests(bundle) == after


def test_a_verdict_that_stays_is_none_that_gets_worse_and_until_the_end_the_old_bundle_stands(
    bundle, gates, monkeypatch
):
    gates |= {"model.int8.onnx": [FAILS, FAILS], "model.int8.cpu.onnx": [FAILS, UNKNOWN]}
    monkeypatch.setattr(module, "prove", lambda *_: None)
    before = digests(bundle)
    with monkeypatch.context() as patched:
        patched.setattr(writer, "exchange", stop)
        with pytest.raises(KeyboardInterrupt):
            heal({}, bundle)
    assert digests(bundle) == before
    assert heal({}, bundle)["heal"]["kept"] == {}


def test_a_bundle_that_was_healed_before_there_was_a_choice_has_both_graphs_healed():
    assert healed_graphs({"heal": {"inputs_sha256": "", "files": [], "record": {}}}) == {*GRAPHS}
    assert not healed_graphs({})


def test_the_current_folder_is_refused_before_the_training(bundle, gates, monkeypatch):
    monkeypatch.chdir(bundle)
    with pytest.raises(UsageError, match=r"cannot be replaced\. Change to another folder"):
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


@pytest.mark.parametrize("copies", [1, 3])
def test_a_result_is_not_proved_on_a_few_texts(bundle, gates, tmp_path, copies):
    rows = [f"a film of the year {number},{number % 2}" for number in range(55)] * copies
    (tmp_path / "few.csv").write_text("sentence,label\n" + "\n".join(rows) + "\n")
    before = digests(bundle)
    with pytest.raises(InputError, match=r"few\.csv: 55 different texts are too few to heal.*at least 7. Give 56 "):
        heal({"calib_data": str(tmp_path / "few.csv")}, bundle)
    assert digests(bundle) == before


@pytest.mark.slow
def test_the_command_heals_and_judges(bundle, lesson, toolchain):
    options = ("--steps", 400, "--max-drop", 0, "--force", "--json")
    refused = toolchain("heal", bundle, *options)
    assert (refused.returncode, "60 different texts are too few to heal with" in refused.stderr) == (1, True)
    found = json.loads(toolchain("heal", bundle, *options, "--calib-data", lesson / "train.csv").stdout)
    assert [one["candidate_name"] for one in found["gate"]] == [one["candidate_name"] for one in found["before"]]


@pytest.mark.stress
def test_sigkill_leaves_the_old_bundle_or_the_healed_one(bundle, lesson, python, root, tmp_path):
    first, whole = (shutil.copytree(bundle, tmp_path / name) for name in ("first", "whole"))
    command = [*python, "-m", "toolchain", "heal", "--max-drop", "100", "--force", "--calib-data", lesson / "train.csv"]
    subprocess.run([*python, "-c", ""], check=True)  # what is forked first waits for the imports, which are not timed
    environment, generator, start = os.environ | {"PYTHONPATH": str(root)}, random.Random(0), time.monotonic()
    subprocess.run([*command, whole], env=environment, check=True, stdout=subprocess.DEVNULL)
    lasts_s = time.monotonic() - start
    with subprocess.Popen([*command, bundle], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert any("rounding the weights" in line for line in process.stderr)
        process.kill()
    assert digests(bundle) == digests(first)
    for _ in range(7):
        with subprocess.Popen([*command, bundle], env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(generator.uniform(0.3, 1.1) * lasts_s)
            except subprocess.TimeoutExpired:
                process.kill()
        if [digests(first), digests(whole)].index(digests(bundle)):  # with every digest checked
            shutil.rmtree(bundle)
            shutil.copytree(first, bundle)
    subprocess.run([*command, bundle], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert digests(bundle) == digests(whole)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
