"""A plan gives the logits of its graph, however batches are split, and every error of TensorRT is one message."""

import json

import numpy as np
import pytest

pytest.importorskip("polygraphy")


@pytest.fixture
def make(toolchain, tmp_path):
    def run(bundle, *options, **chosen):
        done = toolchain("build", bundle, "--backend", "trt", "-q", *options, cwd=tmp_path, **chosen)
        assert done.returncode == 0, done.stderr
        return bundle

    return run


def logits(file):
    with np.load(file) as arrays:
        return arrays["logits"]


@pytest.mark.parametrize(
    ("precision", "built", "chosen", "atol"),
    [
        ("fp32", ("--buckets", "16,64,128", "--batch-size", "2,4,8", "--version-compatible"), {}, 1e-5),
        ("int8", ("--batch-size", "3"), {"version": "11.4.0.106", "streams": "lazy"}, 0.15),
        ("fp16", ("--attention", "plugin", "--batch-size", "2,4,5", "--buckets", "16,128"), {}, 2e-2),
    ],
)
def test_eval_gives_the_logits_of_onnx_runtime(make, toolchain, bundle_of, precision, built, chosen, atol):
    versions = {key: value for key, value in chosen.items() if key != "streams"}
    bundle = make(bundle_of(precision), *built, **versions)
    done = toolchain("eval", bundle, "--backend", "trt", "--json", "-q", **chosen)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["backend"], result["device"], result["precision"], result["n"]) == ("trt", "cuda:0", precision, 40)
    name = f"{precision}.plugin" if "plugin" in built else precision
    assert result["variant"] == name
    found = logits(bundle / f"results/sst2-validation-trt-cuda0-{name}.npz")
    expected = logits(bundle / f"results/sst2-validation-ort-cpu-{precision}.npz")
    np.testing.assert_allclose(found, expected, atol=atol)


PRELUDE = """
    import ctypes, sys
    from pathlib import Path
    import numpy as np, onnxruntime, pycuda.driver as cuda, pytest, tensorrt as trt
    import toolchain.engine.cuda
    from toolchain.errors import InputError, MachineError, UsageError
    from toolchain.runtimes import open_runtime

    bundle = Path(r"{bundle}")
    plan = bundle / "plans/sm75-trt10.16.1.11/model.plan"
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    random = np.random.default_rng(0)

    def batch(rows, length, short=True):
        lengths = random.integers(1, length + 1, rows) if short else np.full(rows, length)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        ids = random.integers(5, 100, (rows, length)) * mask
        return {{"input_ids": ids.astype(np.int32), "attention_mask": mask}}

    def same(infer, one):
        found = infer(one)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, session.run(["logits"], one)[0], atol={atol})

    def done(kind):
        return [call[1] for call in trt.double_calls if call[0] == kind]
"""


@pytest.fixture
def native(make, bundle_of, snippet):
    """Return what runs a snippet beside an engine of two buckets and 2 to 6 rows."""
    bundle = make(bundle_of("fp32"), "--buckets", "16,64", "--batch-size", "2,4,6")
    return lambda code, **chosen: snippet(PRELUDE.format(bundle=bundle, atol=1e-5) + code, **chosen)


def test_batches_are_split_padded_and_run_in_the_smallest_profile(native):
    native(
        """
    with open_runtime("trt", plan) as infer:
        for rows, length in ((1, 1), (2, 16), (6, 17), (7, 64), (25, 9), (13, 30)):
            same(infer, batch(rows, length))
        shapes = [call["input_ids"] for call in done("execute")]
        assert shapes == [(2, 1), (2, 16), (6, 17), (6, 64), (2, 64), *[(6, 9)] * 4, (2, 9), (6, 30), (6, 30), (2, 30)]
        with pytest.raises(InputError, match="up to 64 tokens per row, not 65.*--seq-len"):
            infer(batch(1, 65))
        same(infer, batch(3, 5))
    with pytest.raises(InputError, match="the runtime was closed"):
        infer(batch(1, 1))
    assert cuda.double_allocated() == 0
    """,
        streams="lazy",
    )


FAKE = """
    class Library:
        '''Six functions of libcuda that record what a stream is given, and replay it.'''

        def __init__(self):
            self.calls, self.graphs, self.waiting = [], {}, {}

        def __getattr__(self, name):
            def call(*arguments):
                self.calls.append(name)
                return getattr(self, "_" + name, lambda *_: 0)(*arguments)
            return call

        def _cuStreamBeginCapture_v2(self, stream, mode):
            assert isinstance(stream, ctypes.c_void_p) and mode.value == 1
            held = cuda._driver.STREAMS[stream.value]
            assert not held._waiting, "work is under way"
            self.lazy, cuda._lazy = cuda._lazy, True
            return 0

        def _cuStreamEndCapture(self, stream, graph):
            held, cuda._lazy = cuda._driver.STREAMS[stream.value], self.lazy
            self.recorded, held._waiting = held._waiting, []
            graph._obj.value = 7
            return 0

        def _cuGraphInstantiateWithFlags(self, executable, graph, flags):
            assert (graph.value, flags.value) == (7, 0)
            executable._obj.value = 1 + len(self.graphs)
            self.graphs[executable._obj.value] = self.recorded
            return 0

        def _cuGraphDestroy(self, graph):
            return 0

        def _cuGraphLaunch(self, executable, stream):
            for work in self.graphs[executable.value]:
                work()
            return 0

        def _cuGraphExecDestroy(self, executable):
            del self.graphs[executable.value]
            return 0

    library = Library()
    toolchain.engine.cuda.driver_library = lambda: library
"""


def test_graphs_are_captured_once_per_shape_and_replayed(native):
    native(
        FAKE
        + """
    with open_runtime("trt", plan, cuda_graphs=True) as infer:
        for _ in range(3):
            for rows, length in ((1, 3), (2, 5), (3, 20), (4, 64), (5, 16), (6, 1)):
                same(infer, batch(rows, length))
        assert set(map(tuple, (call["input_ids"] for call in done("execute")))) == {(2, 16), (4, 64), (6, 16)}
        assert len(library.graphs) == library.calls.count("cuStreamBeginCapture_v2") == 3
        assert library.calls.count("cuGraphLaunch") == 18 - 3
        same(infer, batch(20, 50))
    assert library.graphs == {}
    assert library.calls.count("cuGraphDestroy") == library.calls.count("cuGraphExecDestroy")
    assert cuda.double_allocated() == 0
    """
    )


def test_a_driver_that_refuses_the_capture_is_an_error(native):
    native(
        FAKE
        + """
    library._cuStreamBeginCapture_v2 = lambda *_: 900
    with pytest.raises(MachineError, match="cuStreamBeginCapture_v2 returns CUresult 900. Run without --cuda-graphs"):
        with open_runtime("trt", plan, cuda_graphs=True) as infer:
            infer(batch(2, 3))
    """
    )


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("mem", "MachineError", "no 1 MB left. Build for a smaller --batch-size"),
        ("enqueue", "InputError", "TensorRT does not run this batch: .*illegal memory access"),
    ],
)
def test_a_fault_is_one_error_and_frees_everything(native, fault, kind, message):
    native(
        f"""
    with pytest.raises({kind}, match={message!r}), open_runtime("trt", plan) as infer:
        infer(batch(9, 4))
    assert cuda.double_allocated() == 0
    """,
        fault=fault,
    )


def test_a_gpu_that_stops_is_one_error(native):
    native(
        """
    def stop(stream):
        raise cuda.LaunchError("cuStreamSynchronize failed: illegal address")

    with pytest.raises(MachineError, match="the GPU stopped .*illegal address"):
        with open_runtime("trt", plan) as infer:
            cuda.Stream.synchronize = stop
            infer(batch(2, 4))
    """
    )


def test_a_plan_is_checked_before_it_is_deserialised(native):
    native(
        """
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="a plan is executable code"), open_runtime("trt", plan):
        raise AssertionError
    assert not done("deserialize")
    """
    )


def test_rows_without_padding_of_any_lengths(make, bundle_of, snippet):
    bundle = make(bundle_of("fp16"), "--attention", "plugin", "--batch-size", "4,4,8", "--seq-len", "8,16,64")
    snippet(
        PRELUDE.format(bundle=bundle, atol=2e-2)
        + """
    with open_runtime("trt", plan) as infer:
        for rows, length in ((1, 1), (4, 8), (8, 64), (9, 30), (30, 5)):
            one = batch(rows, length)
            same(infer, one)
            shape = done("execute")[-1]
            assert len(shape["input_ids"]) == 1
        empty = batch(3, 4)
        empty["attention_mask"][1] = 0
        others = [0, 2]
        np.testing.assert_allclose(infer(empty)[others],
                                   session.run(["logits"], {k: v[others] for k, v in empty.items()})[0], atol=2e-2)
    with pytest.raises(UsageError, match="has no padding, so batches all differ in shape"):
        with open_runtime("trt", plan, cuda_graphs=True):
            pass
    """
    )


@pytest.mark.parametrize(
    ("options", "chosen", "code", "message"),
    [
        (("--precision", "int8"), {}, 2, "has a plan in fp16"),
        (("--file", "model.onnx"), {}, 2, "not a plan"),
        (("--file", "plans/sm99-trt1/model.plan"), {}, 1, "has no plans/sm99-trt1/model.plan"),
        (("--device", "cuda:3"), {}, 4, "there are 1 GPUs"),
        ((), {"double": False}, 4, "TensorRT: not installed"),
    ],
)
def test_unusable_plans_and_options_are_refused(make, toolchain, bundle_of, options, chosen, code, message):
    bundle = make(bundle_of("fp16"))
    done = toolchain("eval", bundle, "--backend", "trt", "-q", *options, **chosen)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
