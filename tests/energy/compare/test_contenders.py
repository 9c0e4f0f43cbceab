"""Contenders: which there are, their names and rows, and the error if memory does not suffice."""

import shutil
from pathlib import Path

import pytest

from toolchain.bundle.build import build
from toolchain.energy.compare.contenders import find_contenders, find_rows, in_memory, opened, parse_backends
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.recipe import Recipe

CPU = {"device": "cpu"}


def no_log(line):
    pass


@pytest.fixture(scope="module")
def bundles(tiny_distilbert, sentences, tmp_path_factory, begun):
    """Return a bundle in FP32 and one in INT8, of one checkpoint."""
    home = tmp_path_factory.mktemp("contenders")
    for precision in ("fp32", "int8"):
        begun(precision, home / precision)
        build(
            Recipe.make(
                {
                    "model": str(tiny_distilbert),
                    "data": str(sentences),
                    "precision": precision,
                    "calib_samples": 20,
                    "output": str(home / precision),
                }
            ),
            engine=False,
        )
    return [home / "fp32", home / "int8"]


def names(places, backends):
    return [one.name for one in find_contenders(places, backends, CPU, log=no_log)]


def test_backends_are_a_list():
    assert parse_backends("torch, ort,trt,ort") == ["torch", "ort", "trt"]
    with pytest.raises(
        UsageError, match=r"--backend torch,onnx: the backend 'onnx' is unknown\. Choose from torch, ort, openvino, trt"
    ):
        parse_backends("torch,onnx")


def test_every_bundle_on_every_backend_the_first_is_the_baseline(bundles):
    assert names(bundles[1:], ["torch", "ort"]) == ["torch fp32", "ort int8.cpu"]
    assert names(bundles, ["ort"]) == ["fp32: ort fp32.cpu", "int8: ort int8.cpu"]


def test_a_checkpoint_that_two_bundles_share_is_one_contender(bundles):
    lines = []
    found = find_contenders(bundles, ["torch", "ort"], CPU, log=lines.append)
    assert [one.name for one in found] == ["fp32: torch fp32", "fp32: ort fp32.cpu", "int8: ort int8.cpu"]
    assert lines == [f"{bundles[1]}: left out with torch, which would run the same file as for an earlier bundle"]


def test_one_contender_is_an_error(bundles):
    with pytest.raises(UsageError, match="there is only one contender"):
        names(bundles[:1], ["ort"])


def test_bundles_of_one_name_are_named_by_their_path(bundles, tmp_path):
    shutil.copytree(bundles[0], tmp_path / "int8")
    assert names([tmp_path / "int8", bundles[1]], ["ort"]) == [
        f"{tmp_path / 'int8'}: ort fp32.cpu",
        f"{bundles[1]}: ort int8.cpu",
    ]


def test_all_contenders_run_the_same_rows(bundles):
    rows = find_rows(find_contenders(bundles, ["ort"], CPU, log=no_log), seed=0)
    assert len(rows) == 40


def test_contenders_with_other_rows_are_an_error(bundles, tmp_path, sentences, tiny_distilbert, begun):
    begun("fp32", tmp_path / "other")
    data = Path(shutil.copytree(sentences, tmp_path / "data"))
    lines = (data / "validation.csv").read_text().splitlines()
    (data / "validation.csv").write_text("\n".join(lines[:20]) + "\n")
    build(
        Recipe.make(
            {"model": str(tiny_distilbert), "data": str(data), "precision": "fp32", "output": str(tmp_path / "other")}
        ),
        engine=False,
    )
    contenders = find_contenders([bundles[1], tmp_path / "other"], ["ort"], CPU, log=no_log)
    with pytest.raises(InputError, match=r"other: its rows are .*, and those of .*int8 are .*\. Give .* --data\."):
        find_rows(contenders, seed=0)


def test_all_contenders_are_open_together_with_their_own_batches(bundles):
    contenders = find_contenders(bundles[1:], ["torch", "ort"], CPU, log=no_log)
    rows = find_rows(contenders, seed=0)
    lines = []
    with opened(contenders, rows, single=False, seed=0, log=lines.append) as loads:
        for load in loads.values():
            assert sum(piece.rows for piece in load.work) == 40
            assert all(piece.slots <= load.batch_slots for piece in load.work)
            assert load.infer(load.work[0].batch).shape == (load.work[0].rows, 2)
    assert lines == ["opening torch fp32 on cpu", "opening ort int8.cpu on cpu"]


def test_at_a_fixed_rate_a_request_is_a_row(bundles):
    contenders = find_contenders(bundles, ["ort"], CPU, log=no_log)
    with opened(contenders, find_rows(contenders, seed=0), single=True, seed=0, log=no_log) as loads:
        assert {piece.rows for load in loads.values() for piece in load.work} == {1}
        assert {len(load.work) for load in loads.values()} == {40}


class OutOfMemoryError(RuntimeError):
    """The error of torch."""


@pytest.mark.parametrize(
    "error",
    [
        MachineError(
            "Tesla T4: out of memory: 900 MB could not be allocated on the GPU. Build for a smaller --batch-size."
        ),
        InputError("x.onnx: ONNX Runtime cannot load it: Failed to allocate memory for requested buffer of size 9."),
        InputError("x.plan: TensorRT cannot load it: Out of memory. Build it again."),
        MemoryError(),
        OutOfMemoryError("CUDA: tried to allocate 2 GiB"),
    ],
)
def test_a_lack_of_memory_names_the_contenders(error):
    def run():
        with in_memory("trt int8", beside=["torch fp32", "ort fp16"]):
            raise error

    with pytest.raises(MachineError, match=r"^trt int8: it does not fit into memory beside torch fp32, ort fp16 \("):
        run()


def test_other_errors_are_unchanged():
    with pytest.raises(InputError, match="broken"), in_memory("ort fp32", beside=[]):
        raise InputError("x.onnx: broken. Build it again.")
