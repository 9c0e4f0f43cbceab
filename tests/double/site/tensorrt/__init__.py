"""A stand-in for TensorRT on a machine without a GPU, for tests alone.

Put tests/double/site first on PYTHONPATH of a process of its own. The environment chooses, before the import:
TRT_DOUBLE_VERSION (10.16.1.11, 11.4.0.106, or 8.6.1), TRT_DOUBLE_SM (7.5), TRT_DOUBLE_GPU (Tesla T4),
TRT_DOUBLE_FAULT (names of _setup.KNOWN_FAULTS, with commas between them) and TRT_DOUBLE_STREAMS (lazy: nothing
on a stream happens before a synchronisation). Afterwards `double_calls` lists what was done.
"""

from . import (
    _builder,
    _calibrate,
    _config,
    _context,
    _derive,
    _eight,
    _enums,
    _network,
    _parser,
    _plugins,
    _runtime,
    _setup,
    _types,
)

__version__ = _setup.VERSION
double_calls = _setup.double_calls

for _home in (_builder, _calibrate, _config, _context, _derive, _network, _parser, _plugins, _runtime, _types):
    for _name, _value in vars(_home).items():
        if not _name.startswith("_") and getattr(_value, "__module__", None) == _home.__name__ and _name[0] == "I":
            globals()[_name] = _value
for _name, _value in _enums.double_enums.items():
    globals()[_name] = _value

Builder = _builder.Builder
Dims = _types.Dims
EngineInspector = _runtime.EngineInspector
Logger = _types.Logger
OnnxParser = _parser.OnnxParser
ParserError = _parser.ParserError
Permutation = _types.Permutation
PluginField = _types.PluginField
PluginFieldCollection = _types.PluginFieldCollection
PluginFieldCollection_ = _types.PluginFieldCollection_
Profiler = _derive.Profiler
Runtime = _runtime.Runtime
Weights = _types.Weights

get_nv_onnx_parser_version = _parser.get_nv_onnx_parser_version
get_plugin_registry = _plugins.get_plugin_registry
init_libnvinfer_plugins = _plugins.init_libnvinfer_plugins
nptype = _types.nptype
volume = _types.volume

if _setup.MAJOR >= 11:
    for _name in [name for name in globals() if name.startswith("IInt8")]:
        del globals()[_name]

_numbers = globals()["DataType"]
float32, float16, bfloat16 = _numbers.FLOAT, _numbers.HALF, _numbers.BF16
int8, int32, int64, uint8 = _numbers.INT8, _numbers.INT32, _numbers.INT64, _numbers.UINT8
int4, fp4, fp8, e8m0 = _numbers.INT4, _numbers.FP4, _numbers.FP8, _numbers.E8M0
bool = _numbers.BOOL  # noqa: A001

if _setup.MAJOR < 10:
    _eight.take_away(globals())

__all__ = [name for name in globals() if not name.startswith("_")]
