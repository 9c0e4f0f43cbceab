"""On an NVIDIA GPU, for real: PyCUDA's memory, streams and the driver's graphs; TensorRT's lean runtime."""

import numpy as np
import pytest

from toolchain.cuda import Graph, open_gpu
from toolchain.errors import MachineError

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    try:
        with open_gpu() as found:
            yield found
    except MachineError as error:
        pytest.skip(str(error))


def test_what_is_uploaded_comes_back(gpu):
    sent = gpu.pinned((1024,), np.float32)
    got = gpu.pinned((1024,), np.float32)
    sent[:], got[:] = np.arange(1024), 0
    memory, stream = gpu.buffer(sent.nbytes), gpu.stream()
    gpu.upload(memory, sent, stream)
    gpu.download(got, memory, stream)
    stream.synchronize()
    np.testing.assert_array_equal(got, sent)


def test_a_recorded_graph_repeats_its_copies_with_what_the_buffer_holds_then(gpu):
    sent, got = gpu.pinned((256,), np.int32), gpu.pinned((256,), np.int32)
    memory, stream = gpu.buffer(sent.nbytes), gpu.stream()

    def work():
        gpu.upload(memory, sent, stream)
        gpu.download(got, memory, stream)

    work()
    stream.synchronize()
    graph = Graph(stream, work)
    for value in (3, 7):
        sent[:] = value
        graph.launch()
        stream.synchronize()
        assert (got == value).all()
    graph.close()


def test_more_memory_than_there_is_is_refused_with_advice(gpu):
    with pytest.raises(MachineError, match="--batch-size"):
        gpu.buffer(gpu.total_mb * 2**21)


def test_torch_lives_in_the_same_context(gpu):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    tensor = torch.arange(16, dtype=torch.float32, device="cuda:0")
    torch.cuda.synchronize()
    got = np.zeros(16, np.float32)
    gpu.driver.memcpy_dtoh(got, tensor.data_ptr())
    np.testing.assert_array_equal(got, np.arange(16))


def test_the_lean_runtime_loads_and_refuses_foreign_bytes(gpu):
    lean = pytest.importorskip("tensorrt_lean")
    runtime = lean.Runtime(lean.Logger(lean.Logger.INTERNAL_ERROR))
    assert runtime.deserialize_cuda_engine(b"not a plan") is None
