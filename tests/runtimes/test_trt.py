"""A plan gives the logits of its graph, however batches are split, and every error of TensorRT is one message."""

import ctypes
import json
import shutil

import numpy as np
import onnxruntime
import pytest

from tests.double.here import IN_DOUBLE
from toolchain.engine import cuda as driver
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.runtimes import open_runtime

if IN_DOUBLE:
    import pycuda.driver as cuda
    import tensorrt as trt


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
        ("fp32", ("--buckets", "16,128", "--batch-size", "2,4,8"), {"version": "8.6.1"}, 1e-5),
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


class Plan:
    """A plan beside ONNX Runtime on the bundle's graph."""

    def __init__(self, bundle, atol=1e-5):
        self.file = bundle / "plans/sm75-trt10.16.1.11/model.plan"
        self.session = onnxruntime.InferenceSession(bundle / "model.onnx")
        self.random = np.random.default_rng(0)
        self.atol = atol

    def open(self, **choices):
        return open_runtime("trt", self.file, **choices)

    def batch(self, rows, length):
        lengths = self.random.integers(1, length + 1, rows)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        ids = self.random.integers(5, 100, (rows, length)) * mask
        return {"input_ids": ids.astype(np.int32), "attention_mask": mask}

    def same(self, infer, batch):
        found = infer(batch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, self.session.run(["logits"], batch)[0], atol=self.atol)


def done(kind):
    return [call[1] for call in trt.double_calls if call[0] == kind]


@pytest.fixture(scope="module")
def built(toolchain, typed_bundles, tmp_path_factory):
    """A bundle with an engine of two buckets and 2 to 6 rows; read only."""
    bundle = shutil.copytree(typed_bundles["fp32"], tmp_path_factory.mktemp("native") / "fp32")
    options = ("--backend", "trt", "-q", "--buckets", "16,64", "--batch-size", "2,4,6")
    made = toolchain("build", bundle, *options, cwd=bundle.parent)
    assert made.returncode == 0, made.stderr
    return bundle


@pytest.fixture
def native(built, tmp_path):
    return shutil.copytree(built, tmp_path / "native")


@pytest.fixture
def packed(make, bundle_of):
    """A bundle whose engine takes rows without padding."""
    return make(bundle_of("fp16"), "--attention", "plugin", "--batch-size", "4,4,8", "--seq-len", "8,16,64")


@pytest.mark.double(streams="lazy")
def test_batches_are_split_padded_and_run_in_the_smallest_profile(native):
    plan = Plan(native)
    with plan.open() as infer:
        for rows, length in ((1, 1), (2, 16), (6, 17), (7, 64), (25, 9), (13, 30)):
            plan.same(infer, plan.batch(rows, length))
        shapes = [call["input_ids"] for call in done("execute")]
        assert shapes == [(2, 1), (2, 16), (6, 17), (6, 64), (2, 64), *[(6, 9)] * 4, (2, 9), (6, 30), (6, 30), (2, 30)]
        with pytest.raises(InputError, match=r"rows of 65 tokens .at most 64 tokens per row.*--seq-len"):
            infer(plan.batch(1, 65))
        plan.same(infer, plan.batch(3, 5))
    with pytest.raises(InputError, match="the runtime was closed"):
        infer(plan.batch(1, 1))
    assert cuda.double_allocated() == 0


class Library:
    """Six functions of libcuda that record what a stream is given, and replay it."""

    def __init__(self):
        self.calls, self.graphs, self.waiting = [], {}, {}

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            return getattr(self, "_" + name, lambda *_: 0)(*arguments)

        return call

    def _cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert isinstance(stream, ctypes.c_void_p)
        assert mode.value == 1
        held = cuda._driver.STREAMS[stream.value]
        assert not held._waiting, "work is under way"
        self.lazy, cuda._lazy = cuda._lazy, True
        return 0

    def _cuStreamEndCapture(self, stream, graph):  # noqa: N802
        held, cuda._lazy = cuda._driver.STREAMS[stream.value], self.lazy
        self.recorded, held._waiting = held._waiting, []
        graph._obj.value = 7
        return 0

    def _cuGraphInstantiateWithFlags(self, executable, graph, flags):  # noqa: N802
        assert (graph.value, flags.value) == (7, 0)
        executable._obj.value = 1 + len(self.graphs)
        self.graphs[executable._obj.value] = self.recorded
        return 0

    def _cuGraphDestroy(self, graph):  # noqa: N802
        return 0

    def _cuGraphLaunch(self, executable, stream):  # noqa: N802
        for work in self.graphs[executable.value]:
            work()
        return 0

    def _cuGraphExecDestroy(self, executable):  # noqa: N802
        del self.graphs[executable.value]
        return 0


def replaced_driver():
    """Put a recording library where the runtime looks for libcuda, and return it."""
    library = Library()
    driver.driver_library = lambda: library
    return library


@pytest.mark.double
def test_graphs_are_captured_once_per_shape_and_replayed(native):
    plan = Plan(native)
    library = replaced_driver()
    with plan.open(cuda_graphs=True) as infer:
        for _ in range(3):
            for rows, length in ((1, 3), (2, 5), (3, 20), (4, 64), (5, 16), (6, 1)):
                plan.same(infer, plan.batch(rows, length))
        assert set(map(tuple, (call["input_ids"] for call in done("execute")))) == {(2, 16), (4, 64), (6, 16)}
        assert len(library.graphs) == library.calls.count("cuStreamBeginCapture_v2") == 3
        assert library.calls.count("cuGraphLaunch") == 18 - 3
        plan.same(infer, plan.batch(20, 50))
    assert library.graphs == {}
    assert library.calls.count("cuGraphDestroy") == library.calls.count("cuGraphExecDestroy")
    assert cuda.double_allocated() == 0


@pytest.mark.double
def test_a_driver_that_refuses_the_capture_is_an_error(native):
    plan = Plan(native)
    library = replaced_driver()
    library._cuStreamBeginCapture_v2 = lambda *_: 900
    message = "cuStreamBeginCapture_v2 fails with CUresult 900. Run without --cuda-graphs"
    with pytest.raises(MachineError, match=message), plan.open(cuda_graphs=True) as infer:
        infer(plan.batch(2, 3))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(
            MachineError,
            "out of memory: 1 MB could not be allocated on the GPU. Build for a smaller --batch-size",
            marks=pytest.mark.double(fault="mem"),
        ),
        pytest.param(
            InputError,
            "TensorRT cannot run this batch: .*illegal memory access",
            marks=pytest.mark.double(fault="enqueue"),
        ),
    ],
)
def test_a_fault_is_one_error_and_frees_everything(native, error, message):
    plan = Plan(native)
    with pytest.raises(error, match=message), plan.open() as infer:
        infer(plan.batch(9, 4))
    assert cuda.double_allocated() == 0


@pytest.mark.double
def test_a_gpu_that_stops_is_one_error(native):
    plan = Plan(native)

    def stop(stream):
        raise cuda.LaunchError("cuStreamSynchronize failed: illegal address")

    with pytest.raises(MachineError, match=r"the GPU stopped .*illegal address"), plan.open() as infer:  # noqa: PT012
        cuda.Stream.synchronize = stop
        infer(plan.batch(2, 4))


@pytest.mark.double
def test_a_plan_is_checked_before_it_is_deserialised(native):
    plan = Plan(native)
    plan.file.write_bytes(plan.file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="executable code is not loaded"), plan.open():
        raise AssertionError
    assert not done("deserialize")


@pytest.mark.double
def test_rows_without_padding_of_any_lengths(packed):
    plan = Plan(packed, atol=2e-2)
    with plan.open() as infer:
        for rows, length in ((1, 1), (4, 8), (8, 64), (9, 30), (30, 5)):
            one = plan.batch(rows, length)
            plan.same(infer, one)
            shape = done("execute")[-1]
            assert len(shape["input_ids"]) == 1
        empty = plan.batch(3, 4)
        empty["attention_mask"][1] = 0
        others = [0, 2]
        expected = plan.session.run(["logits"], {name: array[others] for name, array in empty.items()})[0]
        np.testing.assert_allclose(infer(empty)[others], expected, atol=2e-2)
    message = "has no padding, so batches all differ in shape"
    with pytest.raises(UsageError, match=message), plan.open(cuda_graphs=True):
        pass


@pytest.mark.parametrize(
    ("options", "chosen", "code", "message"),
    [
        (("--precision", "int8"), {}, 2, "has a plan in fp16"),
        (("--file", "model.onnx"), {}, 2, "not a plan"),
        (("--file", "plans/sm99-trt1/model.plan"), {}, 1, "has no plans/sm99-trt1/model.plan"),
        (("--device", "cuda:3"), {}, 4, "this machine has 1 GPUs"),
        ((), {"double": False}, 4, "TensorRT: it is not installed"),
    ],
)
def test_unusable_plans_and_options_are_refused(make, toolchain, bundle_of, options, chosen, code, message):
    bundle = make(bundle_of("fp16"))
    done = toolchain("eval", bundle, "--backend", "trt", "-q", *options, **chosen)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def replay_in_few_shapes(bundle):
    plan = Plan(bundle, atol=1e-2)
    with open_runtime("trt-rtx", bundle / "plans/sm75-rtx1.7.1.116/model.plan", cuda_graphs=True) as infer:
        for rows, length in ((1, 3), (1, 8), (2, 9), (3, 20), (5, 128)):
            plan.same(infer, plan.batch(rows, length))
    shapes = [call["input_ids"] for call in done("execute")]
    assert shapes == [(1, 8), (1, 8), (2, 16), (4, 24), (6, 128)]


def test_a_plan_of_tensorrt_rtx_runs_with_its_own_checks_and_cache(toolchain, in_double, bundle_of, tmp_path):
    bundle = bundle_of("fp16")
    rtx = ("--backend", "trt-rtx", "-q")
    built = toolchain("build", bundle, *rtx, "--batch-size", "1,4,6", cwd=tmp_path, version="11.4.0.106")
    assert built.returncode == 0, built.stderr
    for options in ((), ("--cuda-graphs",)):
        done = toolchain("eval", bundle, *rtx, "--json", *options, version="11.4.0.106")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["backend"], result["device"], result["n"]) == ("trt-rtx", "cuda:0", 40)
    found = logits(bundle / "results/sst2-validation-trt-rtx-cuda0-fp16.npz")
    expected = logits(bundle / "results/sst2-validation-ort-cpu-fp16.npz")
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert (bundle / "plans/sm75-rtx1.7.1.116/runtime.cache").read_bytes().endswith(b"\nkernels+")
    assert toolchain("verify", bundle, *rtx, version="11.4.0.106").returncode == 0
    in_double(replay_in_few_shapes, {"version": "11.4.0.106"}, bundle=bundle)


@pytest.mark.double(version="11.4.0.106")
def test_tensorrt_rtx_is_asked_about_a_plan_before_it_is_loaded(tmp_path):
    from tests.engine.test_plan import RTX, make
    from toolchain.engine.plan import Tag

    tag = Tag(75, RTX, "trt-rtx")
    plan = make(tmp_path, tag, backend="trt-rtx")  # its bytes are "a plan", and its digest fits
    with pytest.raises(InputError, match="not a plan of TensorRT-RTX"), open_runtime("trt-rtx", plan):
        pass
    kinds = [call[0] for call in trt.double_calls]
    assert "validity" in kinds
    assert "deserialize" not in kinds
