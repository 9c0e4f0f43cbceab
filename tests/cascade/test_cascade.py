"""A cascade of the demo's model: what is written, evaluated and refused."""

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from toolchain import cascade, load
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.learnt import read_listed
from toolchain.cascade import cost, make
from toolchain.cli import main
from toolchain.errors import GateError, InputError, UsageError
from toolchain.evaluation.remarks import remarks
from toolchain.evaluation.results import load_predictions
from toolchain.evaluation.stages import SMALL, find_stage, record_of
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import passed_on
from toolchain.workflow import evaluate

# The demo's first stage answers few rows at once at a tighter limit.
CHOICES = {"max_drop": 3.0, "device": "cpu"}


@pytest.fixture(scope="module")
def cheap():
    """Times are scripted, so that a busy machine decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measure", lambda *_, **__: cost.Cost(0.05, 0.6, (0.55, 0.65)))
        yield


@pytest.fixture
def both(cascade_bundle):
    """A lexical stage before the demo's model: what is known of it, and its folder."""
    return open_bundle(cascade_bundle).manifest["cascade"], cascade_bundle


def logits_of(place, texts, *, alone=False):
    target = find_target({"device": "cpu"}, place)
    tokens, stage = target.resolved.encode(texts), find_stage(target)
    choices = target.choices if alone else {**target.choices, "stage": stage}
    with open_runtime(target.backend, target.model, **choices) as infer:
        return run(infer, tokens).logits, tokens, stage


def test_each_row_has_the_logits_of_the_stage_that_answers_it(both, demo_bundle):
    about, place = both
    rows = find_target({}, demo_bundle).resolved.rows("validation")
    found, tokens, stage = logits_of(place, rows.texts)
    big, _, _ = logits_of(demo_bundle, rows.texts, alone=True)
    with stage.open({}) as first:
        small = run(first, tokens).logits
    rest = passed_on(small, about["threshold"])
    assert 0 < rest.sum() < len(rows)
    np.testing.assert_allclose(found, np.where(rest[:, None], big, small), atol=1e-5)
    assert about["passed_on"] == rest.mean()
    assert about["passed_on_tokens"] == pytest.approx(tokens.lengths[rest].sum() / tokens.lengths.sum())
    assert about["accuracy"]["cascade"] == (found.argmax(axis=1) == [*map(int, rows.labels)]).mean()
    with load(place) as classifier:
        np.testing.assert_allclose(classifier.logits(rows.texts[:50]), found[:50], atol=1e-5)


def test_eval_counts_what_is_passed_on_and_says_that_the_threshold_was_chosen_on_these_rows(both, tmp_path):
    record, place = both[0], shutil.copytree(both[1], tmp_path / "both")
    remarked = []
    result = evaluate({"device": "cpu"}, bundle=place, remark=remarked.append)
    assert result["variant"] == "cascade.fp32.cpu"
    assert result["cascade"]["passed_on"] == record["passed_on"]
    assert result["metrics"]["accuracy"] == record["accuracy"]["cascade"]
    assert len(load_predictions(result).logits) == result["n"]
    assert any("chosen on 1,000 of these 1,000 rows" in line for line in remarked)
    assert not any("these rows are different" in line for line in remarked)
    assert evaluate({"device": "cpu", "backend": "torch", "limit": 50}, bundle=place)["cascade"] is None
    drifted = {**result, "cascade": {**result["cascade"], "passed_on": 1.0}}
    assert any("these rows are different" in line for line in remarks(drifted))


def test_a_bundle_may_be_the_first_stage_and_is_checked(demo_bundle, cheap, tmp_path):
    record = make(CHOICES, tmp_path / "both", big=demo_bundle, small=demo_bundle)
    assert record["cascade"]["accuracy"]["small"] == record["cascade"]["accuracy"]["big"]
    rows = find_target({}, demo_bundle).resolved.rows("validation")
    found, _, _ = logits_of(tmp_path / "both", rows.texts[:40])
    np.testing.assert_allclose(found, logits_of(demo_bundle, rows.texts[:40], alone=True)[0], atol=1e-5)
    manifest = tmp_path / "both" / SMALL / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"created"', '"Created"'))
    with pytest.raises(InputError, match="changed since it was built"):
        find_target({}, tmp_path / "both")


def test_both_bundles_are_pinned_from_outside(demo_bundle, cheap, tmp_path):
    digest, choices = open_bundle(demo_bundle).digest, {**CHOICES, "limit": 400}
    stages = {"big": demo_bundle, "small": demo_bundle}
    for one in (digest, ""):
        with pytest.raises(UsageError, match=r"1 digest\. Give the digests of SMALL and BIG, as --trust"):
            make({**choices, "trust": one}, tmp_path / "both", **stages)
    for other in (f"{'0' * 64},{digest}", f"{digest},{'0' * 64}"):
        with pytest.raises(InputError, match=r"0{8}"):
            make({**choices, "trust": other}, tmp_path / "both", **stages)
    make({**choices, "trust": f"{digest},{digest}"}, tmp_path / "both", **stages)


def test_an_output_that_is_not_a_bundle_is_refused_before_anything_runs(demo_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(cascade, "choose_rows", lambda *_: pytest.fail("too late"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(InputError, match="mine: it exists and is not a bundle"):
        make(CHOICES, tmp_path / "mine", big=demo_bundle, small=demo_bundle)


def other_labels(target):
    head = target.resolved.head
    swapped = dataclasses.replace(head, labels=head.labels[::-1])
    return dataclasses.replace(target, resolved=dataclasses.replace(target.resolved, head=swapped))


def other_length(target):
    return dataclasses.replace(target, resolved=dataclasses.replace(target.resolved, max_length=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_labels, "first stage are positive, negative, and those of the second are negative, positive"),
        (other_length, "its tokens differ from those of the second stage"),
    ],
)
def test_stages_that_do_not_fit_each_other_are_refused(demo_bundle, tmp_path, monkeypatch, change, message):
    real = cascade.find_target
    small = tmp_path / "small"

    def find(changes, place, **choices):
        return change(real(changes, demo_bundle, **choices)) if place == small else real(changes, place, **choices)

    monkeypatch.setattr(cascade, "find_target", find)
    with pytest.raises(InputError, match=message):
        make(CHOICES, tmp_path / "both", big=demo_bundle, small=small)
    assert not (tmp_path / "both").exists()


def test_what_cannot_be_a_cascade_is_refused_and_nothing_is_written(demo_bundle, pair_bundle, both, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="a regression model, and a number has no confidence"):
        make({"device": "cpu"}, out, big=pair_bundle, small=None)
    with pytest.raises(InputError, match="the bundle is a cascade already"):
        make(CHOICES, out, big=both[1], small=None)
    with pytest.raises(InputError, match="the bundle is a cascade already"):
        make(CHOICES, out, big=demo_bundle, small=both[1])
    with pytest.raises(UsageError, match="this folder is one of the stages, and would be replaced"):
        make(CHOICES, demo_bundle, big=demo_bundle, small=None)
    shutil.copytree(demo_bundle, tmp_path / "other")
    with pytest.raises(UsageError, match="the folder has a bundle of one model, which would be replaced"):
        make(CHOICES, tmp_path / "other", big=demo_bundle, small=None)
    torn = shutil.copytree(both[1], tmp_path / "torn") / "cascade/lexical.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(InputError, match="the cascade there is damaged"):
        make(CHOICES, tmp_path / "torn", big=demo_bundle, small=None)
    with pytest.raises(UsageError, match="a cascade runs graphs and plans"):
        make({**CHOICES, "backend": "torch"}, out, big=demo_bundle, small=None)
    with pytest.raises(InputError, match=r"4,000 of these 4,000 rows are train rows"):
        make({**CHOICES, "split": "train"}, out, big=demo_bundle, small=None)
    with pytest.raises(GateError, match="40 rows are too few to tell"):
        make({**CHOICES, "max_drop": 0.5, "limit": 40}, out, big=demo_bundle, small=None)
    assert not out.exists()


def test_a_cascade_that_saves_nothing_ends_with_3_and_one_line(demo_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "measure", lambda *_, **__: cost.Cost(0.77, 1.16, (1.1, 1.2)))
    words = ["cascade", "--lexical", str(demo_bundle), "-o", str(tmp_path / "both"), "--max-drop", "3", "-q"]
    assert main(words) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "the first stage takes 77%, and the second stage on the rows passed on to it takes 39%" in line
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "--lexical", "-o", "c"], "With --lexical, give BIG only"),
        (["a", "-o", "c"], "Give SMALL and BIG, or --lexical and BIG"),
        (["a", "--lexical"], "--output: the option is missing"),
    ],
)
def test_wrong_usage_ends_with_2(words, message, capsys):
    assert main(["cascade", *words]) == 2
    assert message in capsys.readouterr().err


def test_rows_that_are_all_train_rows_are_refused_though_they_are_few(demo_bundle, tmp_path):
    train = find_target({}, demo_bundle).resolved.rows("train")
    few = tmp_path / "few.tsv"
    few.write_text("sentence\tlabel\n" + "".join(f"{train.texts[row][0]}\t{train.labels[row]}\n" for row in range(2)))
    with pytest.raises(InputError, match=r"few\.tsv: every row is also a train row"):
        make({**CHOICES, "calib_data": str(few)}, tmp_path / "both", big=demo_bundle, small=None)
    assert not (tmp_path / "both").exists()


def test_a_cascade_of_somebody_else_that_lacks_a_part_or_names_other_files_is_refused(both):
    bundle = open_bundle(both[1])
    for change in (
        {"first": "bundle"},
        {"first": "bundle", "file": SMALL},  # without a digest
        {"file": "model.onnx"},
        {"file": "../lexical.safetensors"},
        {"threshold": float("nan")},
        {"calibrated_on": {}},
    ):
        record = {**bundle.manifest["cascade"], **change}
        changed = dataclasses.replace(bundle, manifest={**bundle.manifest, "cascade": record})
        with pytest.raises(InputError, match=r"bundle\.json: its entry `cascade` is broken"):
            record_of(changed)
    lacking = {key: value for key, value in bundle.manifest["cascade"].items() if key != "first"}
    with pytest.raises(InputError, match="broken"):
        record_of(dataclasses.replace(bundle, manifest={**bundle.manifest, "cascade": lacking}))


@pytest.mark.parametrize("data", [b"5", b"[[]]", b"{", b"[" * 100_000])
def test_a_list_of_rows_that_is_none_is_refused(tmp_path, data):
    (tmp_path / "rows.json").write_bytes(data)
    bundle = Bundle(tmp_path, {"artefacts": {"rows.json": hashlib.sha256(data).hexdigest()}})
    with pytest.raises(InputError, match="not a list of digests"):
        read_listed(bundle, "rows.json", advice="")
    (tmp_path / "rows.json").write_bytes(b"[]")
    with pytest.raises(InputError, match="changed since"):
        read_listed(bundle, "rows.json", advice="")
