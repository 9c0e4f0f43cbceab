"""The lint finds each fault, with its place and what to do, and none in a repository that `ship` wrote."""

import os
import re
import shutil

import pytest

from toolchain.errors import InputError
from toolchain.ship.config import config_text, read_config
from toolchain.ship.lint import lint, require_no_errors


def test_a_shipped_repository_has_no_findings(shipped):
    found = lint(shipped)
    assert (found["models"], found["findings"]) == (23, [])
    require_no_errors(found)


def rewrite(repository, model, *changes):
    """Change a configuration by (pattern, text) once each."""
    file = repository / model / "config.pbtxt"
    text = file.read_text()
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text, count=1, flags=re.DOTALL)
        assert count, pattern
    file.write_text(text)


CHANGES = [
    ("sentiment_classifier", ("name: .*?\n", 'name: "other"\n'), "error", "its configuration has the name 'other'"),
    ("sentiment_classifier", ("$", "max_batch_sz: 4\n"), "error", 'no field named "max_batch_sz"'),
    ("sentiment_decoder", ('backend: "python"\n', ""), "error", "neither backend nor platform is set"),
    ("sentiment_classifier", ("versions: 1", "versions: 3"), "error", "version 3 is to be served, but has no folder"),
    ("plan_classifier", ('value: "model.sm75.plan"', 'value: "model.t4.plan"'), "error", "1/model.t4.plan is missing"),
    (
        "graph_classifier",
        ("TYPE_INT32", "TYPE_INT64"),
        "error",
        "input input_ids is TYPE_INT64, but 1/model.onnx has TYPE_INT32",
    ),
    (
        "plan_classifier",
        ("TYPE_INT32", "TYPE_INT64"),
        "error",
        "input input_ids is TYPE_INT64, but 1/model.sm75.plan has TYPE_INT32",
    ),
    (
        "graph_classifier",
        ("dims: -1", "dims: [ -1, -1 ]"),
        "error",
        "input input_ids has dims [-1, -1], but 1/model.onnx has [-1]",
    ),
    (
        "sentiment_classifier",
        ("dims: 2", "dims: 3"),
        "error",
        "output logits has dims [3], but 1/model.onnx has [2] after",
    ),
    ("graph_classifier", ('name: "input_ids"', 'name: "ids"'), "error", "1/model.onnx has no input ids"),
    ("graph_classifier", ("input {.*?}\n", ""), "error", "1/model.onnx needs the input input_ids"),
    (
        "plan_classifier",
        ("max_batch_size: 8", "max_batch_size: 64"),
        "error",
        "max_batch_size 64 is above the 8 rows of 1/model.sm75.plan",
    ),
    ("plan_classifier", ('profile: "1"', 'profile: "2"'), "error", "there is no profile 2: 1/model.sm75.plan has 2"),
    ("plan_classifier", ('  profile: "1"\n', ""), "warning", "instances use 1 of 2 profiles"),
    ("plan_classifier", ("dims: 16", "dims: 48"), "error", "model_warmup has 1 rows of 48 tokens, which no profile"),
    ("plan_classifier", ("kind: KIND_GPU|count: 2", "count: 2 kind: KIND_GPU"), "warning", "KIND_GPU does not load"),
    ("sentiment", ("$", "instance_group { count: 2 }\n"), "error", "an ensemble cannot have instances"),
    ("sentiment", ("$", "response_cache { enable: true }\n"), "warning", "a response cache on an ensemble"),
    ("graph_classifier", ("zero_data", "random_data"), "error", "random ids, which lie outside any vocabulary"),
    ("graph_classifier", ("batch_size: 1\n", "batch_size: 9\n"), "error", "has 9 rows, but max_batch_size is 4"),
    ("graph_classifier", ('key: "input_ids"', 'key: "ids"'), "error", "has ids, which is not an input"),
    ("graph_classifier", ("zero_data: true", 'input_data_file: "ids"'), "error", "warmup/ids is missing"),
    ("graph_classifier", ("max_batch_size: 4", "max_batch_size: 1"), "warning", "a delay only adds latency"),
    (
        "plan_classifier",
        ("preferred_batch_size: 4", "preferred_batch_size: 16"),
        "error",
        "16 is above max_batch_size 8",
    ),
    ("sentiment_decoder", ("max_queue_size: 256", "max_queue_size: 0"), "warning", "its queue is unbounded"),
    (
        "sentiment_tokenizer",
        ('name: "attention_mask"', 'name: "input_ids"'),
        "error",
        "output 'input_ids' appears twice",
    ),
    ("sentiment_tokenizer", ("data_type: TYPE_INT32", ""), "error", "output input_ids has no data_type"),
    ("sentiment_tokenizer", ("dims: -1", ""), "error", "output input_ids has no dims"),
    ("sentiment_tokenizer", ("dims: -1", "dims: -2"), "error", "output input_ids has dims [-2]"),
    ("sentiment", ('key: "TEXT"', 'key: "TXT"'), "error", "sentiment_tokenizer has no input TXT"),
    ("sentiment", ('value: "TEXT"', 'value: "TXT"'), "error", "takes TXT, which no step produces"),
    ("sentiment", ('key: "LABEL"', 'key: "CLASS"'), "error", "sentiment_decoder has no output CLASS"),
    (
        "sentiment",
        ('value: "SCORE"', 'value: "LOGITS"'),
        "error",
        "both sentiment_decoder and sentiment_decoder produce LOGITS",
    ),
    ("sentiment", ('value: "LABEL"', 'value: "CLASS"'), "error", "no step produces the output LABEL"),
    ("sentiment", ('model_name: "sentiment_decoder"', 'model_name: "gone"'), "error", "step 'gone' is not a model"),
    (
        "sentiment",
        ("model_version: 1", "model_version: 2"),
        "error",
        "uses version 2 of sentiment_tokenizer, which serves 1",
    ),
    (
        "sentiment",
        ("max_batch_size: 8", "max_batch_size: 64"),
        "error",
        "max_batch_size 64 is above the 8 of sentiment_tokenizer",
    ),
    ("sentiment", ("TYPE_STRING", "TYPE_FP32"), "error", "TEXT is TYPE_FP32 from the request and TYPE_STRING in"),
    (
        "sentiment_tokenizer",
        ("TYPE_INT32", "TYPE_INT64"),
        "error",
        "input_ids is TYPE_INT64 from sentiment_tokenizer and TYPE_INT32 in sentiment_classifier",
    ),
    ("sentiment", ("dims: 2", "dims: 3"), "error", "SCORE has dims [2] from sentiment_decoder and [3] in"),
    (
        "sentiment",
        ("input_map {.*?}\n", ""),
        "error",
        "sentiment_tokenizer needs the input TEXT, which its step does not map",
    ),
]


@pytest.mark.parametrize(("model", "change", "level", "what"), CHANGES, ids=[one[3][:40] for one in CHANGES])
def test_each_fault_is_found(repository, model, change, level, what):
    rewrite(repository, model, change)
    found = lint(repository)["findings"]
    assert [one for one in found if one["level"] == level and what in one["what"]], found
    assert all(one["do"] and not one["do"].endswith(".") and one["where"] for one in found)


def test_an_output_that_is_also_an_input_is_found(repository):
    rewrite(
        repository,
        "sentiment",
        ('key: "LOGITS"\n *value: "LOGITS"', 'key: "LOGITS" value: "copy"'),
        ('value: "logits"', 'value: "LOGITS"'),
        ('value: "logits"', 'value: "LOGITS"'),
    )
    (finding,) = lint(repository)["findings"]
    assert finding["what"].startswith(
        "the output LOGITS is also the input of a step, so a request for other outputs alone"
    )


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("sentiment_decoder/1/model.py", "def (:", "1/model.py is not valid Python"),
        ("sentiment_decoder/1/model.py", "x = 1", "no class TritonPythonModel"),
        ("graph_classifier/1/model.onnx", "no graph", "not an ONNX graph"),
        ("sentiment_classifier/1/model.onnx", "", "1/model.onnx is not the file that was shipped"),
        ("sentiment_tokenizer/requirements.txt", "tokenizers\nnumpy>=2\n", "allows numpy 2"),
        ("plan_classifier/1/model.sm75.plan.json", "{", "1/model.sm75.plan has no record beside it"),
    ],
)
def test_faults_of_files_are_found(repository, file, text, what):
    (repository / file).write_text(text)
    assert [one for one in lint(repository)["findings"] if what in one["what"]]


@pytest.mark.parametrize(
    "file",
    [
        "sentiment_tokenizer/1/tokenizer.json",
        "sentiment_tokenizer/1/settings.json",
        "sentiment_decoder/1/labels.json",
        "sentiment_classifier/1/model.onnx",
    ],
)
def test_a_missing_file_of_our_models_is_reported_once(repository, file):
    folder, _, name = file.partition("/")
    (repository / file).unlink()
    assert [(one["where"], one["what"]) for one in lint(repository)["findings"]] == [(folder, f"{name} is missing")]


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("tokenizer/1/tokenizer.json", "{}", "tokenizer.json is not a tokenizer"),
        ("tokenizer/1/settings.json", "", "settings.json lacks a setting that model.py reads"),
        ("tokenizer/1/settings.json", "{}", "settings.json lacks a setting that model.py reads"),
        (
            "tokenizer/1/settings.json",
            '{"texts": ["TEXT"], "outputs": [], "buckets": [16], "max_characters": 9, '
            '"split_special_tokens": false, "equal_length": false}',
            "has the outputs none, but its configuration has attention_mask, input_ids",
        ),
        ("decoder/1/labels.json", "{}", "labels.json is not a list of labels"),
        ("decoder/1/labels.json", '["a", "b", "c"]', "has 3 labels for 2 logits"),
    ],
)
def test_a_broken_file_of_our_models_is_found(repository, file, text, what):
    (repository / f"sentiment_{file}").write_text(text)
    (finding,) = lint(repository)["findings"]
    assert (finding["level"], what in finding["what"]) == ("error", True), finding


@pytest.mark.parametrize(
    "file",
    [
        "sentiment/config.pbtxt",
        "sentiment_tokenizer/requirements.txt",
        "sentiment_tokenizer/1/model.py",
        "sentiment_tokenizer/1/tokenizer.json",
        "sentiment_tokenizer/1/settings.json",
        "sentiment_decoder/1/labels.json",
        "sentiment_classifier/1/model.onnx",
        "sentiment_classifier/1/provenance.json",
        "plan_classifier/1/model.sm75.plan",
        "plan_classifier/1/model.sm75.plan.json",
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(repository, file):
    assert (repository / file).exists() or "provenance" in file
    (repository / file).unlink(missing_ok=True)
    os.mkfifo(repository / file)
    assert (file, "this is not a regular file") in [(one["where"], one["what"]) for one in lint(repository)["findings"]]


@pytest.mark.parametrize(
    ("lost", "what"),
    [
        ("both_cascade/1/stages.json", "1/stages.json is missing"),
        ("both_cascade/1/tfidf.py", "names a lexical stage, but tfidf.py is missing"),
        ("both_cascade/1/lexical.npz", "1/lexical.npz is missing"),
        ("bundles_first", "version 1 sends rows to bundles_first, which lacks this version"),
        ("bundles_first/1/model.onnx", "1/model.onnx is missing"),
    ],
)
def test_a_cascade_lacks_nothing_that_it_asks(repository, lost, what):
    place = repository / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert any(what in one["what"] for one in lint(repository)["findings"] if one["level"] == "error")


def test_the_others_are_checked_if_one_configuration_cannot_be_read(repository):
    for model in ("graph", "plan"):
        (repository / model / "config.pbtxt").unlink()
    (repository / "graph/config.pbtxt").mkdir()
    found = {one["where"]: one["what"] for one in lint(repository)["findings"]}
    assert found["graph/config.pbtxt"] == "this is not a regular file"
    assert found["plan"].startswith("it has no config.pbtxt")


def test_a_version_without_a_folder_is_found(repository):
    shutil.rmtree(repository / "sentiment/1")
    assert "it has no version folder" in [one["what"] for one in lint(repository)["findings"]]


def test_a_model_without_configuration_is_not_checked(repository):
    (repository / "graph/config.pbtxt").unlink()
    (finding,) = lint(repository)["findings"]
    assert (finding["level"], finding["where"]) == ("warning", "graph")


def test_a_hidden_folder_keeps_triton_from_starting(repository):
    (repository / ".ipynb_checkpoints").mkdir()
    (finding,) = lint(repository)["findings"]
    assert (finding["level"], finding["where"]) == ("error", ".ipynb_checkpoints")


def test_an_ensemble_without_steps_is_found(tmp_path):
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/config.pbtxt").write_text(config_text({"name": "m", "platform": "ensemble"}))
    assert [one["what"] for one in lint(tmp_path)["findings"]] == ["the ensemble has no steps"]


def test_a_repository_with_errors_is_refused(repository):
    (repository / "graph_classifier/1/model.onnx").unlink()
    with pytest.raises(InputError, match="Fix the errors named above"):
        require_no_errors(lint(repository))


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_models_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"not a folder|contains no model"):
        lint(tmp_path / name)


def test_a_configuration_from_tritons_own_tests_is_read(shared):
    assert read_config(shared("examples/triton_ci/trt_ok.pbtxt")).optimization.cuda.graphs
