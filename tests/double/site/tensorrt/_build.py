"""The steps of a build, after the checks: calibration, kernels, plan."""

import numpy as _np

from . import _calibrate, _graph, _layers, _plan, _written
from ._enums import DataType as _DataType
from ._enums import flag_set as _flag_set
from ._setup import FAULTS as _FAULTS
from ._setup import SM as _SM
from ._setup import VERSION as _VERSION
from ._types import say as _say


def io_of(network):
    """Inputs, then outputs: name, mode, type, shape, and what the graph calls its sizes."""
    found = []
    for count, get, mode in (
        (network.num_inputs, network.get_input, "INPUT"),
        (network.num_outputs, network.get_output, "OUTPUT"),
    ):
        for index in range(count):
            tensor = get(index)
            kind, symbols = tensor.dtype.name, network._symbols(tensor.name)
            about = {"name": tensor.name, "mode": mode, "dtype": kind, "shape": list(tensor.shape)}
            found.append(about | {"symbols": symbols or [""] * len(about["shape"])})
    return found


def profiles_of(config, io):
    """Each profile as {input: [min, opt, max]}; a static network has one of its own shapes."""
    static = {entry["name"]: [entry["shape"]] * 3 for entry in io if entry["mode"] == "INPUT"}
    if not config._profiles:
        return [static]
    return [
        static | {name: [list(sizes) for sizes in shapes] for name, shapes in profile._shapes.items()}
        for profile in config._profiles
    ]


def scales_of(network, config, io, logger):
    """Tensor -> scale by the calibrator or by ranges set by hand; None where INT8 is not asked for that way."""
    if not _flag_set(config._flags, "INT8"):
        return None
    if network._writing is None and _graph.quantized(network._model):
        if config._calibrator is not None:
            _say(logger, "WARNING", "Calibrator won't be used in explicit quantization mode.")
        return None
    ranged = {name: max(abs(low), abs(high)) / 127 for name, (low, high) in network._ranges.items()}
    if config._calibrator is None:
        _say(
            logger,
            "WARNING",
            "Calibrator is not being used. Users must provide dynamic range for all tensors that "
            "are not Int32 or Bool.",
        )
        return ranged
    shapes = _calibration_shapes(config, io)
    names, measure = _measure(network)
    scales = _calibrate.calibrate(config._calibrator, shapes, measure)
    _layers.warn_of_missing([name for name in names if name not in scales and name not in ranged], logger)
    return ranged | scales


def _calibration_shapes(config, io):
    """Input -> type and shape to calibrate with: OPT of the calibration profile, else of the first."""
    profile = config._calibration_profile or (config._profiles[0] if config._profiles else None)
    chosen = {} if profile is None else {name: list(shapes[1]) for name, shapes in profile._shapes.items()}
    return {
        entry["name"]: (_DataType.__members__[entry["dtype"]], chosen.get(entry["name"], entry["shape"]))
        for entry in io
        if entry["mode"] == "INPUT"
    }


def _measure(network):
    """The names of the tensors that can have a scale, and a function that gives their values for a batch."""
    if network._writing is not None:

        def evaluate(feeds):
            return {n: v for n, v in network._writing.evaluate(feeds).items() if _np.asarray(v).dtype.kind == "f"}

        return _float_names(network), evaluate
    floats = ("FLOAT", "HALF")
    inner = [name for node in network._model.graph.node for name in node.output if name]
    inner = [name for name in inner if network._type(name).name in floats]
    given = [value.name for value in network._inputs() if network._type(value.name).name in floats]
    run = _graph.runner(network._model, inner)
    wanted = [*given, *inner]

    def values(feeds):
        found = feeds | run(feeds)
        return {name: found[name] for name in wanted if _np.asarray(found[name]).dtype.kind == "f"}

    return wanted, values


def _float_names(network):
    """The float tensors of a network written by the API: its inputs, and what each layer makes."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    for layer in network:
        tensors += [layer.get_output(index) for index in range(layer.num_outputs)]
    return [tensor.name for tensor in tensors if tensor.dtype.name in ("FLOAT", "HALF")]


def plan(network, config, io, scales, logger):
    """The plan's bytes."""
    written = network._writing is not None
    graph = _written.pack(network._writing) if written else network._model.SerializeToString()
    half = _flag_set(config._flags, "FP16")
    if written:
        found = _layers.written_layers(network, scales, half)
    else:
        found = _layers.layers(network._model, network, scales, half)
    if "no_int8" in _FAULTS:
        found = _layers.without_int8(found)
    if "missing_scales" in _FAULTS:
        nodes = [] if written else network._model.graph.node
        _layers.warn_of_missing([node.output[0] for node in nodes if node.op_type in _layers.PRODUCTS], logger)
    header = {
        "version": _VERSION,
        "sm": _SM,
        "hardware": config._hardware_compatibility_level.name,
        "version_compatible": _flag_set(config._flags, "VERSION_COMPATIBLE"),
        "kind": "written" if written else "onnx",
        "name": network.name,
        "io": io,
        "profiles": profiles_of(config, io),
        "verbosity": config._profiling_verbosity.name,
        "layers": found,
        "int8": "Int8" in str(found),
        "refittable": _flag_set(config._flags, "REFIT"),
        "graph_bytes": len(graph),
    }
    return _plan.pack(header, graph)
