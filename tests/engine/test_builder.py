"""A builder passes options by name, collects TensorRT's log, and stops on Ctrl-C."""

import pytest

from toolchain.engine.builder import Options
from toolchain.errors import UsageError

pytest.importorskip("polygraphy")

PRELUDE = """
    import signal, sys
    from pathlib import Path
    import pytest
    import tensorrt as trt
    from toolchain.engine.builder import Builder, Options
    from toolchain.engine.calibrator import entropy_calibrator
    from toolchain.errors import InputError, MachineError

    data = (Path(r"{bundle}") / "model.fp16.onnx").read_bytes()
    names = ["input_ids", "attention_mask"]
    shapes = dict.fromkeys(names, ((1, 1), (2, 8), (4, 16)))
    timing = Path(r"{timing}")

    def build(options=Options(), **more):
        builder = Builder(trt, "g.onnx")
        network = builder.parse(data, strongly_typed=True)
        return builder.build(network, [shapes], options, timing=timing, **more)

    def done(kind):
        return [call[1] for call in trt.double_calls if call[0] == kind]
"""


@pytest.fixture
def code(typed_bundles, snippet, tmp_path):
    """Return what runs a snippet after PRELUDE."""
    head = PRELUDE.format(bundle=typed_bundles["fp16"], timing=tmp_path / "timing/cache")
    return lambda text, **chosen: snippet(head + text, **chosen)


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
        with pytest.raises(UsageError, match=rf"--hardware-compatible {hardware}: needs .* {sm // 10}\.{sm % 10}"):
            options.check(sm)


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_options_reach_the_builder_by_name(code, version):
    code(
        """
    built = build(Options(64, 2, True, "ampere-plus"))
    told, = done("build")
    assert told["pools"] == {"WORKSPACE": 64 * 2**20} and told["level"] == 2 and told["hardware"] == "AMPERE_PLUS"
    assert "VERSION_COMPATIBLE" in told["flags"] and not {"FP16", "INT8", "TF32"} & set(told["flags"]), told
    assert told["typed"] and told["profiles"] == 1 and told["verbosity"] == "DETAILED"
    assert built.summary["products"] > 0 and built.summary["layers"] > built.summary["products"]
    """,
        version=version,
        sm="8.0",
    )


def test_kernels_are_timed_once(code):
    code(
        """
    build(), build()
    assert done("timing") == ["miss", "hit"]
    timing.write_bytes(b"no timing cache")
    build()
    assert timing.read_bytes().startswith(b"timing 10")
    """
    )


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("none_plan", "InputError", "g.onnx: TensorRT builds no engine: .*Could not find any implementation"),
        ("cancel", "InputError", "it logged no error"),
    ],
)
def test_a_failed_build_is_one_error_and_saves_no_timing_cache(code, fault, kind, message):
    code(
        f"""
    with pytest.raises({kind}, match={message!r}):
        build()
    assert not timing.exists()
    """,
        fault=fault,
    )


def test_ctrl_c_ends_the_build_and_restores_the_handler(code):
    code(
        """
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert signal.getsignal(signal.SIGINT) is before
    """,
        fault="interrupt",
    )


@pytest.mark.parametrize("where", ["phase_start", "phase_finish", "step_complete"])
def test_ctrl_c_in_any_callback_ends_the_build(code, where):
    """Python raises KeyboardInterrupt as it enters the callback, where TensorRT's bindings swallow it."""
    code(f"""
    state = []
    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_name == {where!r} and not state:
            state.append(True)
            signal.raise_signal(signal.SIGINT)
    sys.setprofile(watch)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert state
    """)


def test_a_build_in_another_thread_ignores_signals(code):
    code(
        """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(build).result().plan
    """
    )


def test_an_exception_in_the_calibrator_ends_the_build(code):
    code(
        """
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
    """
    )
