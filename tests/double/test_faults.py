"""Each fault of the doubles has the effect that its name states, and memory behaves as on a GPU."""

import pytest

from tests.double.here import IN_DOUBLE

pytest.importorskip("polygraphy")
pytestmark = pytest.mark.double
if IN_DOUBLE:
    import numpy as np
    import pycuda.driver as cuda
    import tensorrt as trt

    from tests.double.prelude import (
        BUILDER,
        LOG,
        by_onnxruntime,
        context_on,
        engine_of,
        execute,
        plain,
        plan_of,
        quantized,
        rows,
    )


@pytest.mark.parametrize(
    "error",
    [
        pytest.param("Could not find any implementation", marks=pytest.mark.double(fault="none_plan")),
        pytest.param("OutOfMemory", marks=pytest.mark.double(fault="oom")),
        pytest.param("", marks=pytest.mark.double(fault="cancel")),
    ],
)
def test_faults_that_give_no_plan(error):
    assert plan_of(plain()) is None
    assert not error or LOG.has("ERROR", error)


@pytest.mark.double(fault="parser")
def test_fault_of_the_parser():
    parser = trt.OnnxParser(BUILDER.create_network(0), LOG)
    assert not parser.parse(plain().SerializeToString())
    assert parser.num_errors == 1
    assert parser.get_error(0).desc()
    assert LOG.has("ERROR", "UNSUPPORTED_NODE")


@pytest.mark.double(fault="missing_scales,no_int8")
def test_faults_of_the_kernels():
    assert b"i8i8" not in plan_of(quantized())
    assert LOG.has("WARNING", "Missing scale and zero-point for tensor h, expect fall back to non-int8")


@pytest.mark.double(fault="interrupt")
def test_interrupt_comes_after_some_progress():
    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.steps, self.open = 0, []

        def phase_start(self, phase_name, parent_phase, num_steps):
            self.open.append(phase_name)

        def step_complete(self, phase_name, step):
            self.steps += 1
            return True

        def phase_finish(self, phase_name):
            self.open.remove(phase_name)

    monitor = Monitor()
    try:
        plan_of(plain(), progress_monitor=monitor)
    except KeyboardInterrupt:
        assert monitor.steps > 0
        assert monitor.open == []
    else:
        raise AssertionError


@pytest.mark.double(fault="interrupt")
def test_interrupt_comes_while_a_callback_runs():
    class Monitor(trt.IProgressMonitor):
        seen = False

        def phase_start(self, phase_name, parent_phase, num_steps):
            pass

        def step_complete(self, phase_name, step):
            try:
                self.draw()
            except KeyboardInterrupt:
                self.seen = True
            return not self.seen

        def draw(self):
            pass

        def phase_finish(self, phase_name):
            pass

    monitor = Monitor()
    assert plan_of(plain(), progress_monitor=monitor) is None
    assert monitor.seen


@pytest.mark.parametrize("error", [None, ValueError])
def test_monitor_can_stop_the_build(error):
    class Monitor(trt.IProgressMonitor):
        def phase_start(self, phase_name, parent_phase, num_steps):
            pass

        def step_complete(self, phase_name, step):
            if error:
                raise error
            return False

        def phase_finish(self, phase_name):
            pass

    assert plan_of(plain(), progress_monitor=Monitor()) is None


@pytest.mark.double(fault="enqueue")
def test_a_batch_that_cannot_be_enqueued():
    context_on()
    assert execute(engine_of(plan_of(plain())), rows(2)) is None


@pytest.mark.double(fault="bad_logits")
def test_outputs_that_are_not_numbers():
    context_on()
    assert np.isnan(execute(engine_of(plan_of(plain())), rows(2))).all()


@pytest.mark.double(fault="mem")
def test_memory_that_runs_out():
    context_on()
    with pytest.raises(cuda.MemoryError, match="out of memory"):
        cuda.mem_alloc(8)


VERSION_TAG = "Version tag does not match"


def write_plan(path):
    path.write_bytes(plan_of(plain()))


@pytest.fixture(scope="module")
def plan(in_double, tmp_path_factory):
    """A plan of the default version and GPU."""
    path = tmp_path_factory.mktemp("plans") / "model.plan"
    in_double(write_plan, path=path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (slice(None), ""),
        pytest.param(slice(None), VERSION_TAG, marks=pytest.mark.double(version="10.14.1.48")),
        pytest.param(slice(None), VERSION_TAG, marks=pytest.mark.double(version="11.4.0.106")),
        pytest.param(slice(None), "expecting compute 8.6 got compute 7.5", marks=pytest.mark.double(sm="8.6")),
        (slice(8, None), "Magic tag does not match"),
        (slice(-5), "ends too early"),
    ],
    ids=["the same", "10.14", "11.4", "sm86", "no magic word", "short"],
)
def test_plan_is_for_its_version_and_gpu_alone(plan, cut, error):
    engine = engine_of(plan[cut])
    assert (engine is None) == bool(error)
    assert engine or LOG.has("ERROR", error), LOG.lines


def test_memory_behaves_as_on_a_gpu():
    def refused(work, kind, text):
        with pytest.raises(kind, match=text):
            work()

    refused(cuda.Device.count, cuda.LogicError, "initialization")
    cuda.init()
    refused(lambda: cuda.mem_alloc(8), cuda.LogicError, "no currently active context")
    held = context_on()
    memory = cuda.mem_alloc(8)
    assert int(memory) % 256 == 0
    assert cuda.double_allocated() == 8
    refused(lambda: cuda.memcpy_htod(memory, np.zeros(9, np.uint8)), cuda.LogicError, "invalid argument")
    refused(lambda: cuda.memcpy_htod(memory, np.zeros((4, 4), np.uint8)[:, ::2]), ValueError, "contiguous")
    memory.free()
    refused(memory.free, cuda.LogicError, "invalid resource handle")
    assert cuda.double_allocated() == 0
    engine = engine_of(plan_of(plain()))
    context = engine.create_execution_context()
    context.set_input_shape("x", (4, 8))
    small = cuda.mem_alloc(8)
    context.set_tensor_address("x", int(small))
    context.set_tensor_address("y", int(small))
    assert not context.execute_async_v3(0)
    assert LOG.has("ERROR", "less than 128 bytes")
    managed = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    managed.set_input_shape("x", (1, 8))
    big = cuda.mem_alloc(32)
    managed.set_tensor_address("x", int(big))
    managed.set_tensor_address("y", int(big))
    assert not managed.execute_async_v3(0)
    assert LOG.has("ERROR", "USER_MANAGED")
    room = cuda.mem_alloc(engine.device_memory_size_v2)
    managed.set_device_memory(int(room), engine.device_memory_size_v2)
    assert managed.execute_async_v3(0)
    held.pop()
    held.detach()


@pytest.mark.double(streams="lazy")
def test_lazy_streams_wait():
    context_on()
    engine, x = engine_of(plan_of(plain())), rows(2)
    assert (execute(engine, x, wait=False) == 7).all()
    np.testing.assert_allclose(execute(engine, x), by_onnxruntime(plain(), x), rtol=1e-6)
