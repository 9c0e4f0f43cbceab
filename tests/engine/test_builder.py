"""A builder passes options by name, collects TensorRT's log, and stops on Ctrl-C."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.double.here import IN_DOUBLE
from toolchain.engine.config import Options
from toolchain.errors import InputError, UsageError

if IN_DOUBLE:
    import tensorrt as trt

    from toolchain.engine.builder import Builder
    from toolchain.engine.calibrator import entropy_calibrator


DEFAULTS = Options()


@dataclass(frozen=True)
class Case:
    """A graph to build, and where the timing cache is."""

    graph: Path
    timing: Path

    def build(self, options=DEFAULTS, **more):
        builder = Builder(trt, "g.onnx")
        network = builder.parse(self.graph.read_bytes(), strongly_typed=True)
        shapes = dict.fromkeys(["input_ids", "attention_mask"], ((1, 1), (2, 8), (4, 16)))
        return builder.build(network, [shapes], options, timing=self.timing, **more)


def done(kind):
    return [call[1] for call in trt.double_calls if call[0] == kind]


@pytest.fixture
def case(typed_bundles, tmp_path):
    return Case(typed_bundles["fp16"] / "model.fp16.onnx", tmp_path / "timing/cache")


@pytest.mark.parametrize(
    ("hardware", "sm", "allowed"),
    [
        ("none", 61, True),
        ("ampere-plus", 75, False),
        ("ampere-plus", 80, True),
        ("same-compute-capability", 75, True),
        ("same-compute-capability", 70, False),
    ],
)
def test_compatibility_that_excludes_this_gpu_is_refused(hardware, sm, allowed):
    options = Options(hardware=hardware)
    if allowed:
        options.check(sm)
    else:
        with pytest.raises(
            UsageError, match=rf"--hardware-compatible {hardware}: a GPU must have .* {sm // 10}\.{sm % 10}"
        ):
            options.check(sm)


@pytest.mark.parametrize(
    "version",
    [pytest.param(version, marks=pytest.mark.double(version=version)) for version in ("10.16.1.11", "11.4.0.106")],
)
@pytest.mark.double(sm="8.0")
def test_options_reach_the_builder_by_name(case, version):
    assert trt.__version__ == version
    built = case.build(Options(64, 2, True, "ampere-plus"))
    (told,) = done("build")
    assert told["pools"] == {"WORKSPACE": 64 * 2**20}
    assert told["level"] == 2
    assert told["hardware"] == "AMPERE_PLUS"
    assert "VERSION_COMPATIBLE" in told["flags"]
    assert {"FP16", "INT8", "TF32"}.isdisjoint(told["flags"])
    assert told["typed"]
    assert told["profiles"] == 1
    assert told["verbosity"] == "DETAILED"
    assert built.summary["products"] > 0
    assert built.summary["layers"] > built.summary["products"]


@pytest.mark.double
def test_kernels_are_timed_once(case):
    case.build()
    case.build()
    assert done("timing") == ["miss", "hit"]
    case.timing.write_bytes(b"no timing cache")
    case.build()
    assert case.timing.read_bytes().startswith(b"timing 10")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(
            "g.onnx: TensorRT builds no engine: .*Could not find any implementation",
            marks=pytest.mark.double(fault="none_plan"),
        ),
        pytest.param("it logged no error", marks=pytest.mark.double(fault="cancel")),
    ],
)
def test_a_failed_build_is_one_error_and_saves_no_timing_cache(case, message):
    with pytest.raises(InputError, match=message):
        case.build()
    assert not case.timing.exists()


@pytest.mark.double(fault="interrupt")
def test_ctrl_c_ends_the_build_and_restores_the_handler(case):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        case.build()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.double
@pytest.mark.parametrize("where", ["phase_start", "phase_finish", "step_complete"])
def test_ctrl_c_in_any_callback_ends_the_build(case, where):
    """Python raises KeyboardInterrupt as it enters the callback, where TensorRT's bindings swallow it."""
    state = []

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_name == where and not state:
            state.append(True)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(watch)
    with pytest.raises(KeyboardInterrupt):
        case.build()
    assert state


@pytest.mark.double
def test_a_build_in_another_thread_ignores_signals(case):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(case.build).result().plan


@pytest.mark.double
def test_an_exception_in_the_calibrator_ends_the_build():
    def rows():
        raise ValueError("row 3 is broken")
        yield

    calibrator = entropy_calibrator(trt, rows(), cache=None, upload=lambda name, array: 0)
    builder = Builder(trt, "calibration")
    network = builder.empty(strongly_typed=False)
    x = network.add_input("x", trt.float32, (2, 8, 1, 1))
    layer = network.add_activation(x, trt.ActivationType.RELU)
    network.mark_output(layer.get_output(0))
    with pytest.raises(ValueError, match="row 3 is broken"):
        builder.build(network, [], Options(), timing=None, calibrator=calibrator, implicit=("INT8",))
