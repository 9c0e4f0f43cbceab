"""`ship triton` makes a repository from a bundle, keeps other versions and models, and refuses invalid choices."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from toolchain.bundle import open_bundle
from toolchain.cli import main
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.ship import install, triton
from toolchain.ship.config import read_config
from toolchain.ship.folder import check_folder
from toolchain.ship.models import configurations
from toolchain.ship.options import Options
from toolchain.ship.signature import Tensor
from toolchain.ship.triton import ship


def config(repository, model):
    return read_config(repository / model / "config.pbtxt")


def warmed(one):
    return [(warm.batch_size, warm.inputs["input_ids"].dims[0]) for warm in one.model_warmup]


def test_a_plan_is_configured_with_its_capability_profiles_and_cuda_graphs(shipped):
    found = config(shipped, "plan_classifier")
    assert (found.platform, found.max_batch_size) == ("tensorrt_plan", 8)
    assert dict(found.cc_model_filenames) == {"7.5": "model.sm75.plan"}
    assert found.default_model_filename == "model.sm75.plan"
    (group,) = found.instance_group
    assert (group.count, group.kind, list(group.profile)) == (2, 0, ["0", "1"])  # 0 is KIND_AUTO
    assert list(found.dynamic_batching.preferred_batch_size) == [4]
    assert warmed(found) == [(1, 16), (1, 32), (8, 32)]
    specs = found.optimization.cuda.graph_spec
    assert {(one.batch_size, one.input["input_ids"].dim[0]) for one in specs} == {
        (rows, length) for rows in (1, 2, 4, 8) for length in (16, 32)
    }
    assert not any(one.HasField("graph_lower_bound") for one in specs)


def test_each_queue_is_bounded_and_the_batcher_adds_no_delay_by_default(shipped, demo_bundle, tmp_path):
    for model in ("sentiment", "plan", "graph"):
        for part in ("tokenizer", "classifier", "decoder"):
            batching = config(shipped, f"{model}_{part}").dynamic_batching
            assert batching.default_queue_policy.max_queue_size == {"plan": 2}.get(model, 256)
            assert batching.max_queue_delay_microseconds == 0
    assert config(shipped, "graph_tokenizer").dynamic_batching.default_queue_policy.default_timeout_microseconds == 6e7
    ship(demo_bundle, tmp_path / "r", Options(name="m", delay_us=500))
    assert config(tmp_path / "r", "m_classifier").dynamic_batching.max_queue_delay_microseconds == 500


@pytest.mark.parametrize(
    ("options", "backend", "kind", "file"),
    [
        ({"backend": "python"}, "python", 2, "model.fp16.onnx"),
        ({"backend": "ort"}, "onnxruntime", 0, "model.fp16.onnx"),
        ({"backend": "ort", "device": "cpu", "file": "model.onnx"}, "onnxruntime", 2, "model.onnx"),
        ({}, "", 0, None),
    ],
)
def test_each_backend_gets_its_own_file(pairs_bundle, tmp_path, options, backend, kind, file):
    done = ship(pairs_bundle, tmp_path / "r", Options(name="m", **options))
    found = config(tmp_path / "r", "m_classifier")
    assert (found.backend, found.instance_group[0].kind) == (backend, kind)
    if file:
        assert {one["from"] for one in done["files"].values()} == {file}
        assert (tmp_path / "r/m_classifier/1/model.onnx").read_bytes() == (pairs_bundle / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "slow"),
    [
        ({"backend": "python"}, True),
        ({"backend": "ort", "device": "cpu"}, True),
        ({"backend": "ort"}, False),
        ({"backend": "python", "file": "model.onnx"}, False),
    ],
)
def test_float16_on_a_cpu_gives_a_warning_with_advice(pairs_bundle, tmp_path, caplog, options, slow):
    ship(pairs_bundle, tmp_path / "r", Options(name="m", **options))
    said = [one for one in caplog.messages if "float16, which is slow on a CPU. Ship the FP32 graph with --file" in one]
    assert len(said) == slow


def test_provenance_has_the_digests_of_bundle_and_files(shipped, pairs_bundle):
    about = json.loads((shipped / "plan/1/provenance.json").read_text())
    assert about["bundle_sha256"] == open_bundle(pairs_bundle).digest
    assert about["tensorrt"] == "10.16.1.11"
    for name, file in about["files"].items():
        data = (shipped / "plan_classifier/1" / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_cascade_is_asked_in_the_place_of_the_classifier(shipped, cascade_of_bundles, tmp_path):
    steps = [step.model_name for step in config(shipped, "both").ensemble_scheduling.step]
    assert steps == ["both_tokenizer", "both_cascade", "both_decoder"]
    assert [one.name for one in config(shipped, "both").output][-2:] == ["STAGE", "TRUNCATED"]
    assert not (shipped / "both_first").exists()
    asked = json.loads((shipped / "bundles_cascade/1/stages.json").read_text())["stages"]
    assert {stage: one["model"] for stage, one in asked.items()} == {
        "first": "bundles_first",
        "second": "bundles_classifier",
    }
    assert asked["first"]["inputs"] == {"input_ids": "int32", "attention_mask": "int32"}
    small = cascade_of_bundles / "cascade/small/model.fp32.cpu.onnx"
    assert (shipped / "bundles_first/1/model.onnx").read_bytes() == small.read_bytes()
    about = json.loads((shipped / "bundles/1/provenance.json").read_text())["first_files"]["model.onnx"]
    assert about == {
        "from": "cascade/small/model.fp32.cpu.onnx",
        "sha256": hashlib.sha256(small.read_bytes()).hexdigest(),
    }
    ship(cascade_of_bundles, tmp_path / "r", Options(name="m", response_cache=True))
    cached = [
        role for role in ("classifier", "first", "cascade") if config(tmp_path / "r", f"m_{role}").response_cache.enable
    ]
    assert cached == ["cascade"]


def test_the_first_stage_of_a_cascade_has_the_tensor_types_of_its_own_engine(cascade_of_bundles, tmp_path, monkeypatch):
    found = {}

    def configured(name, texts, head, engine, options, first=None):
        inputs = {one: Tensor("TYPE_INT64", (-1,)) for one in engine.inputs}
        own = dataclasses.replace(first, engine=dataclasses.replace(first.engine, inputs=inputs))
        found.update(configurations(name, texts, head, engine, options, own))
        return configurations(name, texts, head, engine, options, first)

    monkeypatch.setattr(triton, "configurations", configured)
    ship(cascade_of_bundles, tmp_path / "r", Options(name="m"))
    types = {role: {one["data_type"] for one in found[role]["input"]} for role in ("first", "classifier")}
    assert types == {"first": {"TYPE_INT64"}, "classifier": {"TYPE_INT32"}}


def test_the_readme_contains_the_command_that_starts_the_server(demo_bundle, tmp_path):
    started = ship(demo_bundle, tmp_path / "r", Options(name="m"))["start"]
    assert f"    {started['line']}\n" in (tmp_path / "r/m/README.md").read_text()
    assert "-p 127.0.0.1:8000:8000" in started["line"]


def test_the_packages_of_python_models_are_pinned(shipped):
    assert "numpy<2" in (shipped / "sentiment_classifier/requirements.txt").read_text().splitlines()
    assert not (shipped / "plan_classifier/requirements.txt").exists()


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_version_keeps_earlier_versions_and_other_models(repository, demo_bundle):
    before = files_of(repository)
    done = ship(demo_bundle, repository, Options(name="sentiment", version=2, max_batch=4))
    after = files_of(repository)
    assert done["kept_versions"] == [1]
    assert {name: data for name, data in after.items() if "/1/" in name} == {
        name: data for name, data in before.items() if "/1/" in name
    }
    assert config(repository, "plan_classifier").max_batch_size == 8
    for part in ("", "_tokenizer", "_classifier", "_decoder"):
        assert list(config(repository, f"sentiment{part}").version_policy.specific.versions) == [2]
    assert {step.model_version for step in config(repository, "sentiment").ensemble_scheduling.step} == {2}


def test_the_folder_of_the_repository_remains_the_same(repository, demo_bundle):
    """A container that mounted the folder must see the change."""
    was = repository.stat().st_ino
    ship(demo_bundle, repository, Options(name="sentiment", version=2))
    assert repository.stat().st_ino == was
    assert [path.name for path in repository.parent.iterdir()] == [repository.name]


def test_a_version_with_other_tensors_is_refused(repository, pairs_bundle):
    before = files_of(repository)
    with pytest.raises(
        InputError, match=r"sentiment_tokenizer: its inputs are TEXT TYPE_STRING \[1\].* Choose another"
    ):
        ship(pairs_bundle, repository, Options(name="sentiment", version=2))
    assert files_of(repository) == before


def test_a_failed_run_leaves_nothing(demo_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "sync_tree", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ship(demo_bundle, tmp_path / "r", Options(name="m"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_models_is_refused(demo_bundle, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"contains letter\.txt and no model"):
        ship(demo_bundle, tmp_path, Options(name="m"))


def test_plans_of_several_gpus_are_chosen_by_compute_capability(planned, tmp_path):
    ship(planned(86, options={"hardware_compatible": "ampere-plus"}), tmp_path / "r", Options(name="m"))
    found = config(tmp_path / "r", "m_classifier")
    assert dict(found.cc_model_filenames) == {"7.5": "model.sm75.plan", "8.6": "model.sm86.plan"}
    assert found.default_model_filename == "model.sm86.plan"  # runs on capabilities without a plan of their own


def test_the_plans_of_one_version_of_tensorrt_are_shipped(planned, tmp_path):
    bundle = planned(75, tensorrt="11.4.0.106")
    with pytest.raises(UsageError, match=r"TensorRT 10\.16\.1\.11 and 11\.4\.0\.106.*--tensorrt 11\.4\.0\.106"):
        ship(bundle, tmp_path / "r", Options(name="m"))
    assert ship(bundle, tmp_path / "r", Options(name="m", tensorrt="11.4.0.106"))["start"]["tensorrt"] == "11.4.0.106"
    with pytest.raises(UsageError, match=r"--tensorrt 9: .* has plans for 10\.16"):
        ship(bundle, tmp_path / "r", Options(name="m", tensorrt="9"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "packed"}, "rows without padding.* --attention native"),
        (
            {"profiles": [{"batch": [1, 4, 8], "length": [1, 16, 16]}]},
            "takes at most 16 tokens, but the tokenizer truncates only at 32",
        ),
        ({"profiles": [{"batch": [4, 4, 8], "length": [1, 32, 32]}]}, "takes at least 4 rows"),
    ],
)
def test_a_plan_that_tritons_batcher_cannot_feed_is_refused(planned, tmp_path, changes, message):
    bundle = planned(75, tensorrt="11.4.0.106", **changes)
    with pytest.raises(InputError, match=message):
        ship(bundle, tmp_path / "r", Options(name="m", tensorrt="11.4.0.106"))


def test_plans_with_different_profiles_are_refused(planned, tmp_path):
    bundle = planned(86, profiles=[{"batch": [1, 4, 8], "length": [1, 32, 32]}])
    with pytest.raises(InputError, match="differ in their profiles"):
        ship(bundle, tmp_path / "r", Options(name="m"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "trt"}, MachineError, "contains no plan. Build one"),
        ({"max_batch": 9, "bundle": "pairs"}, UsageError, "takes at most 8"),
        ({"cuda_graphs": True}, UsageError, "--cuda-graphs: this option is only for --backend trt"),
        ({"device": "cpu"}, UsageError, "--device cpu: this option is only for --backend ort"),
        ({"file": "model.int8.onnx"}, InputError, r"has no model\.int8\.onnx"),
        ({"file": "model.onnx", "bundle": "pairs"}, UsageError, "contains all plans"),
    ],
)
def test_an_invalid_choice_is_refused_with_advice(demo_bundle, pairs_bundle, tmp_path, options, error, message):
    bundle = pairs_bundle if options.pop("bundle", None) else demo_bundle
    with pytest.raises(error, match=message):
        ship(bundle, tmp_path / "r", Options(name="m", **options))
    assert not (tmp_path / "r").exists()


def test_options_may_be_as_large_as_the_fields_of_a_configuration(demo_bundle, tmp_path):
    largest = {
        "version": 2**63 - 1,
        "max_batch": 2**31 - 1,
        "instances": 2**31 - 1,
        "queue": 2**32 - 1,
        "timeout_ms": (2**64 - 1) // 1000,
        "delay_us": 2**64 - 1,
    }
    ship(demo_bundle, tmp_path / "r", Options(name="m", **largest))
    assert list(config(tmp_path / "r", "m").version_policy.specific.versions) == [2**63 - 1]
    for name, most in largest.items():
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {most + 1}: too large. Give {most} or less"):
            Options(**{name: most + 1})


def test_one_profile_for_all_lengths_uses_the_default_buckets(planned, tmp_path):
    bundle = planned(75, tensorrt="11.4.0.106", profiles=[{"batch": [1, 8, 8], "length": [1, 24, 32]}])
    done = ship(bundle, tmp_path / "r", Options(name="m", tensorrt="11.4.0.106"))
    assert done["buckets"] == [16, 32]
    assert not config(
        tmp_path / "r", "m_classifier"
    ).dynamic_batching.preferred_batch_size  # the plan is tuned for the largest batch


def test_a_bundle_that_changed_is_refused(pairs_bundle, tmp_path):
    bundle = Path(shutil.copytree(pairs_bundle, tmp_path / "b"))
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="changed since it was built"):
        ship(bundle, tmp_path / "r", Options())


def test_the_command_line_ships_and_lints(demo_bundle, tmp_path, capsys):
    place = tmp_path / "r"
    assert main(["ship", "triton", str(demo_bundle), "-o", str(place), "--max-batch", "4", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["model"], done["backend"], done["max_batch"]) == ("demo", "python", 4)
    assert main(["ship", "--json", "triton", "--lint", str(place)]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    (place / "demo_classifier/1/model.onnx").unlink()
    assert main(["ship", "triton", "--lint", str(place)]) == 1
    assert "error: demo_classifier: 1/model.onnx is missing. Ship the bundle again" in capsys.readouterr().out
    assert main(["ship", "triton", str(demo_bundle)]) == 2
    assert "Name the folder of the model repository with -o DIR" in capsys.readouterr().err


def test_help_names_each_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["ship", "triton", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in Options.names())


@pytest.mark.parametrize("name", ["triton", "torch", "onnx"])
def test_a_folder_with_the_name_of_a_package_is_refused(demo_bundle, tmp_path, name):
    with pytest.raises(UsageError, match=rf"--output .*/{name}: \S+ imports a Python package of this name"):
        ship(demo_bundle, tmp_path / name, Options(backend="python"))
    assert list(tmp_path.iterdir()) == []


def test_a_dependency_that_is_not_installed_counts_too(tmp_path, monkeypatch):
    info = tmp_path / "library-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text('Name: library\nVersion: 1.0\nRequires-Dist: Fast_Parser>=2; extra == "fast"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="library imports a Python package of this name"):
        check_folder(tmp_path / "fast_parser")
    check_folder(tmp_path / "repository")
