"""On an NVIDIA GPU, for real: PyCUDA's memory, streams and the driver's graphs; TensorRT's lean runtime; NVML."""

import os
import time

import numpy as np
import pytest

from toolchain import graph
from toolchain.checkpoint.model import find_model
from toolchain.engine.cuda import CudaGraph, open_gpu
from toolchain.errors import MachineError
from toolchain.graph.fp16 import to_half
from toolchain.graph.ort_cuda import for_cuda
from toolchain.meters.gpu_state import describe, other_processes, read_state
from toolchain.meters.nvml import Unavailable, open_nvml, visible_devices
from toolchain.profile.profilers import open_profiler
from toolchain.profile.spans import group_ms
from toolchain.runtimes.ort import has_gpu, open_ort
from toolchain.runtimes.pytorch import open_torch

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    try:
        with open_gpu() as found:
            yield found
    except MachineError as error:
        pytest.skip(str(error))


@pytest.fixture
def board():
    try:
        with open_nvml():
            yield visible_devices()[0]
    except Unavailable as why:
        pytest.skip(str(why))


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
    recorded = CudaGraph(stream, work)
    for value in (3, 7):
        sent[:] = value
        recorded.launch()
        stream.synchronize()
        assert (got == value).all()
    recorded.close()


def test_more_memory_than_there_is_is_refused_with_advice(gpu):
    with pytest.raises(MachineError, match="--batch-size"):
        gpu.buffer(gpu.total_mb * 2**21)


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_pytorchs_parts_fill_a_call_on_the_gpu(checkpoints, probe, kind):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    with open_profiler("torch", find_model(str(checkpoints[kind])), device="cuda:0") as opened:
        for _ in range(5):
            opened.infer(probe(kind))
        ms = group_ms(opened.spans()[1:])
    assert opened.clock == "cuda_events"
    assert set(ms) == {"copy", "embedding", "attention", "feed_forward", "head"}
    assert all(0 < value < 1000 for value in ms.values())


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


def test_the_counter_rises_and_power_reads(board):
    before, deadline = board.energy_mj(), time.monotonic() + 10
    while board.energy_mj() == before and time.monotonic() < deadline:
        pass
    assert board.energy_mj() > before
    assert 1_000 < board.power_mw() < 2_000_000


def test_the_memorys_power_is_part_of_the_boards(board):
    try:
        memory_mw = board.memory_power_mw()
    except Unavailable as why:
        pytest.skip(str(why))
    assert 0 < memory_mw < board.power_mw()


def test_a_real_gpu_is_described(board):
    found, state = describe(board), read_state(board)
    basics = ("name", "uuid", "index", "architecture", "power_limit_w", "sm_clock_max_mhz", "mig", "superchip")
    assert [name for name in basics if found[name] is None] == []
    assert found["power_limit_w"] <= found["power_limit_range_w"][1]
    assert 0 < state.temperature_c < 120
    assert 0 < state.sm_clock_mhz <= found["sm_clock_max_mhz"]
    assert state.memory_clock_mhz > 0
    assert state.event_reasons is not None
    assert os.getpid() not in (other_processes(board) or [])


@pytest.fixture
def ort_cuda():
    """ONNX Runtime with CUDA, and a graph that is fused for it, in float16."""
    pytest.importorskip("onnxruntime")
    if not has_gpu():
        pytest.skip("this ONNX Runtime has no CUDA, or there is no GPU")

    def made(source):
        model = graph.load(source)
        for_cuda(model)
        to_half(model)
        return graph.serialised(model)

    return made


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_the_fused_graph_gives_the_models_logits(ort_cuda, exported, random_batch, reference, kind, cuda_graphs):
    with open_ort(ort_cuda(exported[kind]), device="cuda:0", cuda_graphs=cuda_graphs) as infer:
        for rows, length in ((5, 23), (8, 32), (5, 23), (1, 7)):
            batch = random_batch(kind, rows, length)
            np.testing.assert_allclose(infer(batch), reference(kind, batch), atol=0.05)


def test_fp32_on_onnx_runtime_is_no_tf32(ort_cuda, exported, random_batch, reference):
    batch = random_batch("bert", 8, 32)
    with open_ort(exported["bert"], device="cuda:0") as infer:
        np.testing.assert_allclose(infer(batch), reference("bert", batch), atol=2e-5)


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
@pytest.mark.parametrize(
    "choices",
    [
        {"attention": "flash"},
        {"attention": "flex"},
        {"attention": "packed"},
        {"cuda_graphs": True},
        {"compiled": True},
        {"compiled": True, "cuda_graphs": True},
    ],
)
def test_every_road_of_pytorch_gives_the_models_logits(checkpoints, random_batch, reference, kind, choices):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    with open_torch(find_model(str(checkpoints[kind])), device="cuda:0", precision="fp16", **choices) as infer:
        for rows, length in ((5, 23), (8, 32), (5, 17), (1, 7)):
            batch = random_batch(kind, rows, length)
            np.testing.assert_allclose(infer(batch), reference(kind, batch), atol=0.05)
