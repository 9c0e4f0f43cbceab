"""ONNX graphs: their types in TensorRT's words, and their values on a CPU."""

import functools as _functools
import importlib.util as _importlib_util
import sys as _sys
from pathlib import Path as _Path

import numpy as _np
import onnx as _onnx

from ._enums import DataType as _DataType
from ._types import Dims as _Dims

PLUGINS = "trt.plugins"
TESTS = _Path(__file__).parents[3]
_TYPES = {
    "FLOAT": "FLOAT",
    "FLOAT16": "HALF",
    "BFLOAT16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
    "DOUBLE": "FLOAT",
}
TYPE_OF_ONNX = {getattr(_onnx.TensorProto, ours): _DataType.__members__[name] for ours, name in _TYPES.items()}


def shape_of(value):
    """Sizes of a graph's input, output or inner value; -1 for what is not fixed."""
    return _Dims([d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim])


def values_of(model):
    """Name -> value info of everything whose type can be told."""
    try:
        graph = _onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # plugins stop it; what was said is then all there is
        graph = model.graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def initializers(model):
    return {tensor.name for tensor in model.graph.initializer}


def inputs(model):
    held = initializers(model)
    return [value for value in model.graph.input if value.name not in held]


def has_plugins(model):
    return any(node.domain == PLUGINS for node in model.graph.node)


def quantized(model):
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


@_functools.cache
def by_path(name):
    """A module of the tests, loaded by its file name; None while nobody has written it."""
    path = TESTS / name
    if path.stem in _sys.modules:
        return _sys.modules[path.stem]
    if not path.exists():
        return None
    spec = _importlib_util.spec_from_file_location(path.stem, path)
    module = _importlib_util.module_from_spec(spec)
    _sys.modules[path.stem] = module  # pickle finds its classes by this name
    spec.loader.exec_module(module)
    return module


def runner(model, outputs=None):
    """Return a function from {name: array} to {name: array}; `outputs` are inner values to see as well."""
    if outputs is not None:
        model = _with_outputs(model, outputs)
    names = [value.name for value in model.graph.output]
    run = _reference(model) if has_plugins(model) else _onnxruntime(model)
    return lambda feeds: dict(zip(names, run(feeds), strict=True))


def _with_outputs(model, names):
    wide = _onnx.ModelProto()
    wide.CopyFrom(model)
    there = {value.name for value in wide.graph.output}
    wide.graph.output.extend(_onnx.ValueInfoProto(name=name) for name in names if name not in there)
    return wide


def _reference(model):
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(model, new_ops=by_path("plugin_reference.py").OPS)
    return lambda feeds: [_np.asarray(value) for value in session.run(None, feeds)]


def _onnxruntime(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # compute what the graph says, in float
    if any(not value.HasField("type") for value in model.graph.output):  # inner values keep their names
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)
