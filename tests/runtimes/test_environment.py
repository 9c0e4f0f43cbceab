import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from toolchain.base.processors import cpu_threads
from toolchain.meters.nvml import all_devices
from toolchain.runtimes import environment
from toolchain.runtimes.environment import cpu_name, describe, gpu_facts, version_of

Driver = Callable[..., None]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Replace the results of NVIDIA's driver; a list has one for each GPU, and an exception is raised."""

    def answer(**calls: Any) -> None:
        known = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetUUID": ["GPU-1", "GPU-2"],
        }
        # A GPU's handle is its index here.
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
        for name, value in (known | calls).items():

            def call(*handle: int, value: Any = value) -> Any:
                found = value[handle[0]] if isinstance(value, list) else value
                if isinstance(found, Exception):
                    raise found
                return found

            monkeypatch.setattr(pynvml, name, call)

    return answer


def test_the_version_is_that_of_the_distribution_or_none() -> None:
    assert version_of("pytest") == pytest.__version__
    assert version_of("no-such-package") is None


def test_the_first_of_two_gpus_is_described(driver: Driver) -> None:
    driver(
        nvmlDeviceGetCount=2,
        nvmlSystemGetCudaDriverVersion_v2=12080,
        nvmlSystemGetDriverVersion="570.86",
        nvmlDeviceGetName=["Tesla T4", "NVIDIA L4"],
    )
    assert gpu_facts() == {"driver": "570.86", "cuda": "12.8", "gpu": "Tesla T4", "reason": None}
    assert [(one.index, one.uuid, one.name) for one in all_devices()] == [
        (0, "GPU-1", "Tesla T4"),
        (1, "GPU-2", "NVIDIA L4"),
    ]


def test_a_missing_library_driver_or_gpu_has_its_reason(driver: Driver) -> None:
    cases = [
        ({"nvmlInit": pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)}, "no_nvml_library"),
        ({"nvmlInit": pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)}, "driver_not_loaded"),
        ({"nvmlSystemGetCudaDriverVersion_v2": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)}, "nvml_6"),
    ]
    for calls, reason in cases:
        driver(**calls)
        assert gpu_facts() == {"driver": None, "cuda": None, "gpu": None, "reason": reason}


def test_nvml_is_closed_whatever_happens(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    driver(nvmlSystemGetCudaDriverVersion_v2=pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN))
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: closed.append(True))
    gpu_facts()
    assert closed == [True]


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_facts()["reason"] == "no_nvml_package"


def test_the_processor_is_named_or_else_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nmodel name\t: Some CPU: fast\n")
    assert cpu_name() == "Some CPU: fast"
    monkeypatch.setattr(Path, "read_text", absent)
    assert cpu_name() == platform.machine()


def test_describe_has_the_keys_of_the_design_and_null_for_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpu_facts", lambda: dict.fromkeys(("driver", "cuda", "gpu", "reason")))
    monkeypatch.setattr(environment, "version_of", {"torch": "2.13", "onnxruntime-gpu": "1.31"}.get)
    found = describe()
    keys = ("python", "torch", "onnxruntime", "tensorrt", "cuda", "driver", "gpu", "cpu", "threads")
    assert {key: found[key] for key in keys} == {
        "python": platform.python_version(),
        "torch": "2.13",
        "onnxruntime": "1.31",
        **dict.fromkeys(("tensorrt", "cuda", "driver", "gpu")),
        "cpu": cpu_name(),
        "threads": cpu_threads(),
    }


def test_pynvml_is_the_maintained_package() -> None:
    assert isinstance(pynvml, ModuleType)
    assert version_of("nvidia-ml-py")
