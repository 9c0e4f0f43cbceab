"""Only what a bundle lists is read, and what is used is what was checked."""

import contextlib
import os
import random
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toolchain
from toolchain import graph
from toolchain.base.files import sha256_file
from toolchain.bundle import MANIFEST, open_bundle
from toolchain.errors import InputError, ToolchainError
from toolchain.evaluation.classifier import Classifier
from toolchain.evaluation.target import find_target
from toolchain.runtimes.ort import open_session

TEXTS = ["a gripping and moving film", "dull, unwatchable [UNK] zzz", "not bad"]

# Names that transformers or ONNX Runtime would look for beside the files of a bundle.
KNOWN_NAMES = {
    "special_tokens_map.json": '{"unk_token": "the", "pad_token": "bad"}',
    "added_tokens.json": '{"film": 7}',
    "vocab.txt": "a\nb\n",
    "tokenizer.model": "x",
    "chat_template.jinja": "x",
    "model.onnx.data": "x",
    "results/tokenizer.json": "{}",
}


@pytest.fixture
def copy(demo_bundle, tmp_path):
    return shutil.copytree(demo_bundle, tmp_path / "bundle")


@pytest.fixture(scope="module")
def logits(demo_bundle):
    """Return a function from a folder to the logits of the bundle whose digest is trusted."""
    digest = open_bundle(demo_bundle).digest

    def run(folder):
        with toolchain.load(folder, trust=digest, device="cpu") as classifier:
            return classifier.logits(TEXTS)

    return run


@pytest.fixture(scope="module")
def expected(logits, demo_bundle):
    return logits(demo_bundle)


def changed(file, other, choose):
    data = bytearray(file.read_bytes())
    data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    file.write_bytes(data)


def longer(file, other, choose):
    data = bytearray(file.read_bytes())
    data.insert(choose.randrange(len(data) + 1), choose.randrange(256))
    file.write_bytes(data)


def shorter(file, other, choose):
    data = bytearray(file.read_bytes())
    del data[choose.randrange(len(data))]
    file.write_bytes(data)


def absent(file, other, choose):
    file.unlink()


def swapped(file, other, choose):
    data = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(data)


@pytest.fixture(scope="module")
def everything(demo_bundle, tmp_path_factory):
    """A bundle with files of every kind in its folder: listed ones, a result, and one that nobody lists."""
    folder = shutil.copytree(demo_bundle, tmp_path_factory.mktemp("everything") / "bundle")
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "x.json").write_text('{"schema": 1}')
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder, {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@settings(suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("way", [changed, longer, shorter, absent, swapped])
@given(choose=st.randoms(use_true_random=False))
def test_one_other_byte_or_file_is_refused_or_changes_no_logit(everything, logits, expected, way, choose):
    folder, whole = everything
    file, other = choose.sample(sorted(whole), 2)
    try:
        way(file, other, choose)
        with contextlib.suppress(ToolchainError):
            np.testing.assert_array_equal(logits(folder), expected)
    finally:
        for one in (file, other):
            one.write_bytes(whole[one])


@pytest.mark.parametrize("way", [changed, longer, shorter, absent, swapped])
def test_a_listed_file_that_is_not_the_same_is_refused_by_its_name(copy, logits, expected, way):
    choose = random.Random(way.__name__)
    files = [copy / name for name in open_bundle(copy).manifest["artefacts"]]
    whole = {file: file.read_bytes() for file in files}
    for number, file in enumerate(files):
        way(file, files[number - 1], choose)
        with pytest.raises(InputError, match=r"(changed since|missing)[^\n]*$"):
            logits(copy)
        for one in (file, files[number - 1]):
            one.write_bytes(whole[one])
    np.testing.assert_array_equal(logits(copy), expected)


def test_files_that_the_bundle_does_not_list_change_no_logit(copy, logits, expected, monkeypatch):
    for name, text in KNOWN_NAMES.items():
        (copy / name).parent.mkdir(exist_ok=True)
        if not (copy / name).exists():
            (copy / name).write_text(text)
    monkeypatch.chdir(copy)
    np.testing.assert_array_equal(logits(copy), expected)


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", [MANIFEST, "model.onnx", "model.fp32.cpu.onnx", "tokenizer.json"])
def test_what_is_not_a_file_is_refused_in_a_line(copy, logits, kind, name):
    file, kept = copy / name, copy.parent / "kept"
    file.rename(kept)
    {"fifo": os.mkfifo, "link": lambda file: file.symlink_to(kept), "folder": os.mkdir}[kind](file)
    with pytest.raises(
        InputError, match=rf"{name}: this is (a symbolic link|not a regular file)\. Replace it with [^\n]*$"
    ):
        logits(copy)


def test_files_that_are_swapped_while_a_model_is_opened_change_nothing(copy, expected, monkeypatch):
    target = find_target({"backend": "ort", "device": "cpu"}, copy, runs=True)
    for name in target.bundle.texts:
        (copy / name).write_text("{}")
    read = graph.read_listed

    def swapped(path, digests):
        found = read(path, digests)
        path.write_bytes(b"another graph")
        return found

    monkeypatch.setattr(graph, "read_listed", swapped)
    with Classifier(target) as classifier:
        np.testing.assert_array_equal(classifier.logits(TEXTS), expected)
    with pytest.raises(InputError, match=r"model\.fp32\.cpu\.onnx: changed since it was built"):
        Classifier(target)


@pytest.fixture
def outside(tmp_path):
    """A graph y = x + w, whose weights are in w.bin; 1 MB, so that they stay there."""
    weights = np.arange(2**18, dtype=np.float32)
    tensor = onnx.numpy_helper.from_array(weights, "w")
    value = [onnx.helper.make_tensor_value_info(name, 1, [len(weights)]) for name in "xy"]
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", value[:1], value[1:], [tensor]
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return tmp_path / "m.onnx", weights


@pytest.mark.parametrize("limit", [None, 2**16])
def test_weights_in_a_file_of_their_own_must_be_listed(outside, monkeypatch, limit):
    file, weights = outside
    monkeypatch.setattr(graph, "MAX_BYTES", limit or graph.MAX_BYTES)
    digests = {name: sha256_file(file.with_name(name)) for name in ("m.onnx", "w.bin")}
    (found,) = open_session(file, digests=digests).run(None, {"x": weights})
    np.testing.assert_array_equal(found, 2 * weights)
    with pytest.raises(InputError, match=r"its weights are in w\.bin, which the bundle does not list\. Get a"):
        open_session(file, digests={"m.onnx": digests["m.onnx"]})
    file.with_name("w.bin").write_bytes(bytes(weights.nbytes))
    with pytest.raises(InputError, match=r"w\.bin: changed since it was built"):
        open_session(file, digests=digests)


def test_sessions_of_the_same_weights_share_one_map_while_they_are_open(outside, monkeypatch):
    file, weights = outside
    monkeypatch.setattr(graph, "MAX_BYTES", 2**16)
    digests = {name: sha256_file(file.with_name(name)) for name in ("m.onnx", "w.bin")}
    hashed = []
    monkeypatch.setattr(graph, "sha256_open", lambda file, real=graph.sha256_open: hashed.append(file) or real(file))
    both = [open_session(file, digests=digests) for _ in range(2)]
    assert len(hashed) == 1
    for session in both:
        np.testing.assert_array_equal(session.run(None, {"x": weights})[0], 2 * weights)


def test_weights_of_a_constant_in_another_file_are_not_read(outside, monkeypatch):
    """A place that only the attribute of a node names is found by ONNX Runtime alone."""
    file, _ = outside
    model = onnx.load(file, load_external_data=False)
    constant = onnx.helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    model.graph.node.insert(0, constant)
    del model.graph.initializer[:]
    file.write_bytes(model.SerializeToString())
    monkeypatch.chdir(file.parent)
    with pytest.raises(InputError, match=r"m\.onnx: ONNX Runtime cannot load it"):
        open_session(file, digests={name: sha256_file(file.with_name(name)) for name in ("m.onnx", "w.bin")})
