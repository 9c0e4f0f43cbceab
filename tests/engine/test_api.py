"""TensorRT's abilities are looked up by name, and its log is collected."""

import builtins
import enum
import importlib
from types import SimpleNamespace

import pytest

from toolchain.engine.api import (
    LogCollector,
    create,
    has_implicit_int8,
    major_of,
    network_flags,
    version_number,
)
from toolchain.engine.releases import import_release
from toolchain.errors import MachineError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt"), "TensorRT: it is not installed"),
        (ImportError("libnvinfer.so.10: no such file"), r"cannot be loaded \(libnvinfer"),
        (FileNotFoundError("Could not find: libnvinfer.so.10"), r"cannot be loaded \(Could not find"),
    ],
)
def test_a_missing_tensorrt_is_a_machine_error(monkeypatch, error, message):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MachineError, match=message):
        import_release("trt")


def test_the_log_is_sorted_by_level():
    messages = LogCollector()
    assert messages.first_error == "it logged no error"
    for level, line in (
        ("INFO", "out of memory"),
        ("WARNING", "Missing scale and zero-point for tensor a.b: c, expect fall back"),
        ("INTERNAL_ERROR", "Assertion\n  failed."),
        ("ERROR", "CUDA error"),
    ):
        messages.add(level, line)
    assert (messages.errors, messages.missing_scales) == (["Assertion\n  failed.", "CUDA error"], ["a.b: c"])
    assert messages.first_error == "Assertion failed"
    assert not messages.out_of_memory
    messages.add("ERROR", "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
    assert messages.out_of_memory


def test_abilities_are_looked_up_by_name():
    both = enum.IntEnum("BuilderFlag", {"FP16": 0, "INT8": 1})
    neither = enum.IntEnum("BuilderFlag", {"TF32": 0})
    ten = SimpleNamespace(IInt8EntropyCalibrator2=builtins.object, BuilderFlag=both)
    assert has_implicit_int8(ten)
    assert not has_implicit_int8(SimpleNamespace(BuilderFlag=both))
    assert not has_implicit_int8(SimpleNamespace(IInt8EntropyCalibrator2=builtins.object, BuilderFlag=neither))
    for number in (0, 1):
        flags = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": number, "OTHER": 5})
        trt = SimpleNamespace(NetworkDefinitionCreationFlag=flags)
        assert network_flags(trt, strongly_typed=True) == 1 << number
        assert network_flags(trt, strongly_typed=False) == 0
    eight = enum.IntEnum("NetworkDefinitionCreationFlag", {"OTHER": 1, "EXPLICIT_BATCH": 0})
    for typed in (False, True):
        assert network_flags(SimpleNamespace(NetworkDefinitionCreationFlag=eight), strongly_typed=typed) == 1


def test_versions():
    assert version_number("10.16.1.11") == 101601
    assert version_number("8.6.1") == 8601
    assert major_of("11.4.0.106") == 11


def test_a_builder_that_cannot_start_is_a_machine_error():
    """A driver too old gives a null pointer, which the bindings raise as TypeError."""
    messages = LogCollector(errors=["CUDA initialization failure with error: 35."])

    def null(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    for kind in (null, lambda logger: None):
        with pytest.raises(MachineError, match=r"cannot start: CUDA initialization failure with error: 35\. .*driver"):
            create(kind, None, messages)
