"""Models, engines and a calibrator for the tests of the doubles; imported in a process that sees them."""

import numpy as np
import onnxruntime
import pycuda.driver as cuda
import tensorrt as trt
from onnx import TensorProto, helper, numpy_helper
from polygraphy.backend.trt import CreateConfig, Profile

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(8, 8)).astype(np.float32)


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.lines = []

    def log(self, severity, msg):
        self.lines.append((severity.name, msg))

    def has(self, severity, text):
        return any(name == severity and text in line for name, line in self.lines)


LOG = Log()
BUILDER = trt.Builder(LOG)


def model(nodes, weights, outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def plain():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Relu", ["h"], ["y"], name="relu"),
    ]
    return model(nodes, {"w": WEIGHT})


def conv():
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["u"], name="up"),
        helper.make_node("Conv", ["u", "k"], ["c"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("Squeeze", ["c", "axes"], ["y"], name="down"),
    ]
    return model(nodes, {"axes": np.array([2, 3]), "k": WEIGHT.reshape(8, 8, 1, 1)})


def quantized():
    """x -> int8 -> product -> attention of the rows among themselves -> y."""

    def pair(name):
        return [
            helper.make_node("QuantizeLinear", [name, "s", "z"], [name + "_q"], name=name + "_quantize"),
            helper.make_node("DequantizeLinear", [name + "_q", "s", "z"], [name + "_d"], name=name + "_dequantize"),
        ]

    nodes = [
        *pair("x"),
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w_d"], name="weight"),
        helper.make_node("MatMul", ["x_d", "w_d"], ["h"], name="product"),
        *pair("h"),
        helper.make_node("Transpose", ["h_d"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["h_d", "t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], name="softmax"),
        *pair("p"),
        helper.make_node("MatMul", ["p_d", "h_d"], ["y"], name="context"),
    ]
    w8 = np.clip(np.round(WEIGHT * 20), -127, 127).astype(np.int8)
    return model(nodes, {"s": np.float32(0.05), "z": np.int8(0), "w8": w8})


def attention():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "x"], ["y"], name="context"),
    ]
    return model(nodes, {})


def network_of(proto, typed=True):
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = BUILDER.create_network(flag if typed else 0)
    parser = trt.OnnxParser(network, LOG)
    assert parser.parse(proto.SerializeToString()), str(parser.get_error(0))
    return network


def config_of(network, **choices):
    profile = Profile().add("x", (1, 8), (2, 8), (4, 8))
    return CreateConfig(profiles=[profile], **choices)(BUILDER, network)


def plan_of(proto, typed=True, **choices):
    network = network_of(proto, typed)
    made = BUILDER.build_serialized_network(network, config_of(network, **choices))
    return None if made is None else bytes(made)


def engine_of(plan):
    return trt.Runtime(LOG).deserialize_cuda_engine(plan)


def context_on():
    cuda.init()
    held = cuda.Device(0).retain_primary_context()
    held.push()
    return held


def execute(engine, x, wait=True, static=False):
    """Through addresses: the output, or None where the engine refuses to run."""
    stream = cuda.Stream()
    context = engine.create_execution_context()
    assert context.set_optimization_profile_async(0, stream.handle)
    assert context.infer_shapes() == ([] if static else ["x"])
    assert context.set_input_shape("x", x.shape)
    assert context.infer_shapes() == []
    there, back = cuda.mem_alloc(x.nbytes), cuda.mem_alloc(x.nbytes)
    result = cuda.pagelocked_empty(tuple(context.get_tensor_shape("y")), np.float32)
    result[:] = 7
    cuda.memcpy_htod_async(there, x, stream)
    context.set_tensor_address("x", int(there))
    context.set_tensor_address("y", int(back))
    if not context.execute_async_v3(stream.handle):
        return None
    cuda.memcpy_dtoh_async(result, back, stream)
    if wait:
        stream.synchronize()
    return result


def by_onnxruntime(proto, x):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def rows(count):
    return RANDOM.normal(size=(count, 8)).astype(np.float32)


# TensorRT 11 has no calibrators.
class Calibrator(getattr(trt, "IInt8EntropyCalibrator2", object)):  # type: ignore[misc]
    def __init__(self, batches, cache=None, fail=None):
        trt.IInt8EntropyCalibrator2.__init__(self)
        self.batches, self.cache, self.fail = list(batches), cache, fail
        self.written, self.held = None, None

    def get_batch_size(self):
        return 2

    def get_batch(self, names):
        assert names == ["x"]
        if len(self.batches) == self.fail:
            raise ValueError("no more of this")
        if not self.batches:
            return None
        batch = self.batches.pop()
        self.held = cuda.mem_alloc(batch.nbytes)
        cuda.memcpy_htod(self.held, batch)
        return [int(self.held)]

    def read_calibration_cache(self):
        return self.cache

    def write_calibration_cache(self, cache):
        self.written = bytes(cache)
