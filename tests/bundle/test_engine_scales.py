"""The scales of an INT8 plugin engine: made whole, fed with what TensorRT reads, and never a stranger's."""

import json
import os
import re

import numpy as np
import pytest

from tests.double.here import IN_DOUBLE
from toolchain import graph
from toolchain.bundle import engine_scales
from toolchain.cli import main
from toolchain.engine.cache import parse_cache
from toolchain.graph.encoder import parse_encoder, tensor_names
from toolchain.runtimes.ort import open_session

if IN_DOUBLE:
    import pycuda.driver as cuda
    import tensorrt as trt

PLACE = "plans/sm75-trt10.16.1.11"
PLUGIN = ("--attention", "plugin", "--batch-size", "1,4,16", "--seq-len", "1,24,128")
TENSORRT = (*PLUGIN, "--calibrator", "tensorrt")


@pytest.fixture
def make(toolchain, tmp_path):
    return lambda bundle, *options, **chosen: toolchain(
        "build", bundle, "--backend", "trt", *options, cwd=tmp_path, **chosen
    )


@pytest.fixture
def int8_copy(bundle_of):
    return bundle_of("int8")


def scales_of(bundle):
    file = bundle / PLACE / "calibration.cache"
    return parse_cache(file.read_text(), where="x")[1], json.loads(file.with_name(f"{file.name}.json").read_text())


def real_rows(bundle, sentences):
    """Each row of the train split that was calibrated with, alone and without padding, as the encoder reads it."""
    from transformers import AutoTokenizer

    digests = set(json.loads((bundle / "calibration.json").read_text())["row_sha256"])
    from toolchain.data.rows import load_rows
    from toolchain.data.tasks import load_task
    from toolchain.recipe import Recipe

    rows = load_rows(load_task(Recipe(task="sst2")), "train", data=str(sentences))
    texts = [text for text, digest in zip(rows.texts, rows.text_digests, strict=True) if digest in digests]
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    for (text,) in texts:
        ids = np.array([tokenizer(text)["input_ids"]], np.int32)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_both_calibrators_give_every_tensor_a_scale_of_its_size(make, toolchain, bundle_of, sentences):
    bundle = bundle_of("int8")
    encoder = parse_encoder(graph.load(bundle / "model.onnx"))
    names = set(tensor_names(encoder))
    sources = {
        f"layer.{index}.{role}": name
        for index, layer in enumerate(encoder.layers)
        for role, name in (layer.sources | layer.results).items()
    }
    looked = {name: sources[name] for name in ("layer.0.normed", "layer.1.context", "layer.1.outer", "layer.0.inner")}
    session = open_session(graph.with_outputs(graph.load(bundle / "model.onnx"), [*looked.values()]))
    seen = [session.run(list(looked.values()), row) for row in real_rows(bundle, sentences)]
    assert len(seen) == 24
    amax = {name: max(np.abs(one[index]).max() for one in seen) for index, name in enumerate(looked)}
    for options in (PLUGIN, TENSORRT):
        done = make(bundle, *options, "--json")
        assert done.returncode == 0, done.stderr
        scales, about = scales_of(bundle)
        assert set(scales) == names
        assert json.loads(done.stdout)["engine"]["layers"]["int8_products"] >= 8
        room = 1.05 if options is PLUGIN else 2  # TensorRT's calibrator sees padded positions too
        for name, most in amax.items():  # and entropy may clip a little
            assert 0.3 * most < 127 * scales[name] < room * most, name
        assert about["calibrator"] == ("own" if options is PLUGIN else "tensorrt")
        assert about["tensorrt"] == "10.16.1.11"
    assert (about["rows"], about["batches"], about["shape"]) == (24, 6, [4, 24])
    done = toolchain("eval", bundle, "--backend", "trt", "--json", "-q")
    assert json.loads(done.stdout)["variant"] == "int8.plugin", done.stderr


@pytest.mark.slow
def test_tensorrt_8_calibrates_and_builds_with_the_older_plugins(make, toolchain, bundle_of):
    bundle, eight = bundle_of("int8"), {"version": "8.6.1", "fault": "v2_plugins"}
    done = make(bundle, *TENSORRT, "--json", **eight)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["engine"]
    assert (record["tensorrt"], sorted(record["plugins"].values())) == ("8.6.1", ["2", "2"])
    assert record["layers"]["int8_products"] >= 8
    cache = (bundle / "plans/sm75-trt8.6.1/calibration.cache").read_text()
    assert cache.startswith("TRT-8601-EntropyCalibration2\n")
    done = toolchain("eval", bundle, "--backend", "trt", "--json", "-q", **eight)
    assert json.loads(done.stdout)["variant"] == "int8.plugin", done.stderr


@pytest.mark.double
def test_the_calibrator_is_fed_whole_batches_of_opt_shape_in_int32(int8_copy, tmp_path):
    os.chdir(tmp_path)
    seen = []
    original = engine_scales.entropy_calibrator

    def watched(trt, batches, **more):
        seen.extend(batches)
        return original(trt, batches, **more)

    engine_scales.entropy_calibrator = watched
    assert main(["build", str(int8_copy), "--backend", "trt", "-q", *TENSORRT]) == 0
    assert [{name: array.shape for name, array in batch.items()} for batch in seen] == [
        {"input_ids": (24, 4), "lengths": (4, 1)}
    ] * 6
    arrays = [array for batch in seen for array in batch.values()]
    assert all(array.dtype == np.int32 and array.flags.c_contiguous for array in arrays)
    for batch in seen:  # 0 pads, and no real token is 0
        assert (np.count_nonzero(batch["input_ids"], axis=0) == batch["lengths"][:, 0]).all()
    assert ("get_batch", 6) in trt.double_calls


@pytest.mark.double
def test_an_upload_that_fails_ends_the_build_with_that_error(int8_copy, tmp_path):
    def fail(target, source):
        raise ZeroDivisionError("of the copy")

    os.chdir(tmp_path)
    cuda.memcpy_htod = fail
    with pytest.raises(ZeroDivisionError, match="of the copy"):
        main(["build", str(int8_copy), "--backend", "trt", "-q", *TENSORRT])


@pytest.fixture(scope="module")
def given(toolchain, typed_bundles, tmp_path_factory):
    """A folder with a cache that TensorRT made, the file of its origin, and the bundle that it was made for."""
    import shutil

    home = tmp_path_factory.mktemp("given")
    bundle = shutil.copytree(typed_bundles["int8"], home / "b")
    done = toolchain("build", bundle, "--backend", "trt", "-q", *TENSORRT, cwd=home)
    assert done.returncode == 0, done.stderr
    for name in ("calibration.cache", "calibration.cache.json"):
        shutil.copyfile(bundle / PLACE / name, home / name)
    shutil.rmtree(bundle)
    return home


@pytest.fixture
def cache(given, tmp_path):
    import shutil

    return shutil.copytree(given, tmp_path / "given") / "calibration.cache"


@pytest.mark.double
def test_a_good_cache_is_taken_without_calibrating_again(cache, int8_copy, tmp_path):
    os.chdir(tmp_path)
    options = [*TENSORRT, "--calibration", str(cache)]
    assert main(["build", str(int8_copy), "--backend", "trt", "-q", *options]) == 0
    assert not [call for call in trt.double_calls if call[0] == "get_batch"]
    assert len([call for call in trt.double_calls if call[0] == "build"]) == 1
    assert (int8_copy / PLACE / "calibration.cache").read_bytes() == cache.read_bytes()


def edit(old, new):
    return lambda file: file.write_text(file.read_text().replace(old, new))


def recar(key, value):
    def change(file):
        car = file.with_name(f"{file.name}.json")
        car.write_text(json.dumps(json.loads(car.read_text()) | {key: value}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-5]), "calibration.cache: the file is cut off after"),
        (edit("context: 3", "context: 2"), "changed since it was written"),
        (edit("TRT-101601", "TRT-101501"), "its header is TRT-101501-EntropyCalibration2, and TensorRT 10.16.1.11"),
        (edit("layer.1.qkv", "layer.9.qkv"), r"lacks a scale for layer\.1\.qkv \(1 missing\)"),
        (lambda file: file.with_name(f"{file.name}.json").unlink(), "which states the cache's origin, is missing"),
        (recar("model_sha256", "another"), "made with model_sha256 = 'another'"),
        (recar("max_length", 64), "made with max_length = 64, but this build has 128"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(make, cache, bundle_of, change, message):
    change(cache)
    done = make(bundle_of("int8"), *TENSORRT, "--calibration", cache, "-q")
    assert (done.returncode, bool(re.search(message, done.stderr))) == (1, True), done.stderr


def test_a_cache_without_its_calibrator_is_not_silently_ignored(make, cache, bundle_of):
    done = make(bundle_of("int8"), *PLUGIN, "--calibration", cache, "-q")
    assert (done.returncode, "a TensorRT cache is used only with --calibrator tensorrt" in done.stderr) == (2, True)


def test_fewer_rows_than_a_batch_are_refused(make, bundle_of):
    done = make(bundle_of("int8"), "--attention", "plugin", "--calibrator", "tensorrt", "-q")
    assert (done.returncode, "24 calibration rows do not fill one batch of 32 rows" in done.stderr) == (1, True)
