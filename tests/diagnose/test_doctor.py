"""Doctor: states and advice for everything that it looks for."""

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.nvml.scripted import ScriptedNvml
from toolchain.data import hub
from toolchain.diagnose import doctor
from toolchain.diagnose.doctor import examine
from toolchain.meters import rapl

GPU = {"driver": "570.86", "cuda": "12.8", "gpu": "Tesla T4", "reason": None}


def states() -> dict[str, str]:
    return {finding.name: finding.state for finding in examine(network=False)}


def finding(name: str, *, network: bool = False) -> doctor.Finding:
    return next(found for found in examine(network=network) if found.name == name)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Installed packages, to be changed."""
    known: dict[str, str | None] = {name: "1.0" for name in (*doctor.PACKAGES, "onnxruntime")}
    monkeypatch.setattr(doctor, "version_of", known.get)
    return known


def test_every_finding_has_a_state_and_advice_where_it_is_not_ok() -> None:
    for found in examine(network=False):
        assert found.state in {"ok", "missing", "broken"}
        assert found.detail
        assert found.advice or found.state == "ok"


def test_everything_that_this_project_needs_is_installed() -> None:
    wanted = ("Python", "CPU", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "datasets", "evaluate")
    assert {states()[name] for name in wanted} == {"ok"}


@pytest.mark.parametrize(("version", "state"), [("3.10.9", "broken"), ("3.11.0", "ok"), ("3.14.0rc1", "broken")])
def test_only_supported_versions_of_python_are_ok(monkeypatch: pytest.MonkeyPatch, version: str, state: str) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: version)
    assert states()["Python"] == state


def test_a_missing_package_is_named_with_its_command(versions: dict[str, str | None]) -> None:
    versions["onnx"] = None
    assert finding("onnx") == doctor.Finding("onnx", "missing", "not installed", "pip install 'encoder-toolchain[cpu]'")


def test_both_packages_of_onnx_runtime_at_once_are_broken(versions: dict[str, str | None]) -> None:
    versions["onnxruntime-gpu"] = "1.0"
    assert finding("ONNX Runtime").state == "broken"
    assert "overwrite each other" in finding("ONNX Runtime").advice


def test_no_onnx_runtime_is_missing(versions: dict[str, str | None]) -> None:
    versions["onnxruntime"] = None
    assert (finding("ONNX Runtime").state, finding("ONNX Runtime").detail) == (
        "missing",
        "neither package is installed",
    )


def test_an_onnx_runtime_that_does_not_import_is_broken(
    versions: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert finding("ONNX Runtime").state == "broken"


def test_a_gpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_facts", lambda: GPU)
    assert (finding("GPU").detail, finding("NVML").detail) == ("Tesla T4", "driver 570.86, supports up to CUDA 12.8")


def test_without_a_gpu_the_reason_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_facts", lambda: GPU | {"reason": "no_nvml_library"})
    assert (finding("GPU").state, finding("NVML").detail) == ("missing", "no_nvml_library")


@pytest.mark.parametrize("there", [(), ("libcudart.so.12",)])
def test_a_library_is_found_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...]) -> None:
    def load(name: str) -> object:
        if name in there:
            return object()
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    found = finding("CUDA runtime")
    assert (found.state, found.detail) == (
        ("ok", there[0]) if there else ("missing", "none of libcudart.so.13, libcudart.so.12 can be loaded")
    )


def test_optional_packages_are_looked_for_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "pycuda" else find(name))
    assert finding("PyCUDA").state == "ok"
    assert "pycuda" not in sys.modules


def test_tensorrt_is_broken_without_its_libraries_and_shows_its_paths_to_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("TensorRT").state == "missing"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "tensorrt" else find(name))
    assert finding("TensorRT").state == "broken"
    later = SimpleNamespace(__version__="11.4.0.106", BuilderFlag=SimpleNamespace(__members__={}))
    monkeypatch.setitem(sys.modules, "tensorrt", later)
    assert finding("TensorRT").detail == "11.4.0.106: INT8 with Q/DQ nodes only; FP8 from sm89 on, so not on a T4"


def test_rapl_is_ok_missing_or_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "POWERCAP", tmp_path)
    assert finding("RAPL").state == "missing"
    (tmp_path / "intel-rapl:0").mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (tmp_path / "intel-rapl:0" / name).write_text(text)
    assert (finding("RAPL").state, finding("RAPL").detail) == ("ok", "package-0")
    monkeypatch.setattr(rapl, "find_zones", lambda root: ([], rapl.PERMISSION))
    assert finding("RAPL").state == "broken"
    assert f"chmod a+r {tmp_path}/*/energy_uj" in finding("RAPL").advice


@pytest.mark.parametrize(
    ("reason", "state", "detail"),
    [(None, "ok", "it can be reached"), ("https://x: TimeoutError", "missing", "https://x: TimeoutError")],
)
def test_a_hub_that_cannot_be_reached_is_missing(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, state: str, detail: str
) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: reason)
    assert (finding("Hub", network=True).state, finding("Hub", network=True).detail) == (state, detail)


def test_without_network_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: pytest.fail("asked"))
    assert "Hub" not in states()


@pytest.mark.parametrize(
    ("scenario", "state", "detail"),
    [
        ("", "ok", "Tesla T4: energy counter"),
        ("no_counter 0\n", "ok", "Tesla T4: integrated power"),
        ("mig 0 1\n", "missing", "mig_shared: the readings cover the whole GPU, not the slice"),
    ],
)
def test_gpu_energy_is_found_where_the_meter_would_read_it(
    nvml: ScriptedNvml, scenario: str, state: str, detail: str
) -> None:
    nvml.load(f"device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 30000\n{scenario}")
    found = doctor._gpu_energy()
    assert (found.state, found.detail) == (state, detail)


def test_tensorrt_rtx_states_the_gpus_that_it_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = SimpleNamespace(__version__="1.7.1.116", ComputeCapability=SimpleNamespace(__members__=["NONE", "SM75"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert finding("TensorRT-RTX").state == "missing"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", rtx)
    assert finding("TensorRT-RTX") == doctor.Finding(
        "TensorRT-RTX", "ok", "1.7.1.116: compiles for sm75; FP8 from sm89 on, so not on a T4"
    )
