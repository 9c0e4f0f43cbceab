"""The GPU through PyCUDA, and CUDA graphs through six functions of the driver."""

import ctypes
import importlib
from types import SimpleNamespace

import pytest

from toolchain.engine import cuda
from toolchain.errors import MachineError


class Error(Exception):
    pass


class NoMemoryError(Error):
    pass


class Context:
    depth = 0

    def push(self):
        Context.depth += 1

    def pop(self):
        Context.depth -= 1


@pytest.fixture
def driver(monkeypatch):
    """A driver with two GPUs."""

    def no_room(*_):
        raise NoMemoryError("cuMemAlloc failed")

    class Device:
        count = staticmethod(lambda: 2)

        def __init__(self, index):
            self.index = index

        def name(self):
            return f"GPU {self.index}"

        def compute_capability(self):
            return 8, 6

        def total_memory(self):
            return 16 << 30

        def retain_primary_context(self):
            return Context()

    found = SimpleNamespace(
        Device=Device,
        Error=Error,
        MemoryError=NoMemoryError,
        init=lambda: None,
        mem_alloc=no_room,
        get_driver_version=lambda: 12040,
        pagelocked_empty=no_room,
    )
    monkeypatch.setattr(importlib, "import_module", lambda name: found)
    return found


def test_a_gpu_is_described_and_its_context_released(driver):
    with cuda.open_gpu("cuda:1") as gpu:
        assert Context.depth == 1
        assert (gpu.name, gpu.sm, gpu.total_mb, gpu.cuda) == ("GPU 1", 86, 16384, "12.4")
    assert Context.depth == 0
    with pytest.raises(ZeroDivisionError), cuda.open_gpu():
        raise ZeroDivisionError
    assert Context.depth == 0


def test_missing_memory_is_a_machine_error(driver):
    with cuda.open_gpu() as gpu:
        with pytest.raises(MachineError, match="GPU 0: out of memory: 3 MB could not be allocated on the GPU"):
            gpu.buffer(3 << 20)
        with pytest.raises(MachineError, match="out of memory: 2 MB of page-locked host memory could not be"):
            gpu.pinned((1 << 19,), "float32")


def test_a_missing_gpu_is_a_machine_error(driver):
    with pytest.raises(MachineError, match="--device cuda:2: this machine has 2 GPUs"), cuda.open_gpu("cuda:2"):
        pass
    driver.Device.count = staticmethod(lambda: 0)
    with pytest.raises(MachineError, match="no GPU is visible"), cuda.open_gpu():
        pass

    def broken():
        raise Error("cuInit failed: no CUDA-capable device is detected")

    driver.init = broken
    with pytest.raises(MachineError, match=r"no GPU can be used .*no CUDA-capable device"):
        cuda.import_pycuda()


def test_missing_pycuda_is_a_machine_error(monkeypatch):
    def absent(name):
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MachineError, match=r"PyCUDA: the package or CUDA is not installed .libcuda"):
        cuda.import_pycuda()


class Library:
    """libcuda: every call is noted; `refuses` gives 900."""

    def __init__(self, refuses=None):
        self.calls, self.refuses = [], refuses

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            return 900 if name == self.refuses else 0

        return call


@pytest.fixture
def library(monkeypatch):
    made = Library()
    monkeypatch.setattr(cuda, "driver_library", lambda: made)
    return made


def test_a_graph_is_captured_launched_and_freed(library):
    graph = cuda.CudaGraph(SimpleNamespace(handle=5), lambda: library.calls.append("work"))
    graph.launch()
    graph.close()
    assert library.calls == [
        "cuStreamBeginCapture_v2",
        "work",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]


def test_a_failure_during_the_capture_ends_it(library):
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cuda.CudaGraph(SimpleNamespace(handle=5), work)
    assert library.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]


@pytest.mark.parametrize("name", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_an_error_names_the_function_of_the_driver(library, name):
    library.refuses = name
    with pytest.raises(MachineError, match=f"{name} fails with CUresult 900"):
        cuda.CudaGraph(SimpleNamespace(handle=5), lambda: None)
    assert ("cuGraphDestroy" in library.calls) == (name == "cuGraphInstantiateWithFlags")


def test_a_missing_libcuda_is_a_machine_error(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(MachineError, match=r"libcuda\.so\.1: cannot open .* Run without --cuda-graphs"):
        cuda.driver_library()


@pytest.mark.parametrize("refuses", [None, "cuInit", "cuDeviceGetAttribute"])
def test_the_compute_capability_is_that_of_the_driver_or_unknown(monkeypatch, refuses):
    library = Library(refuses)

    def attribute(found, number, device):
        found._obj.value = {75: 8, 76: 9}[number]
        return 900 if refuses == "cuDeviceGetAttribute" else 0

    library.cuDeviceGetAttribute = attribute
    monkeypatch.setattr(cuda, "driver_library", lambda: library)
    assert cuda.compute_capability("cuda:1") == (None if refuses else 89)


def test_bytes_of_large_arrays_do_not_overflow():
    assert cuda.nbytes((1 << 20, 1 << 20), "float32") == 1 << 42
