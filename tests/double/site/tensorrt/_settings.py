"""The properties of a builder's configuration that are a value and nothing else."""

from ._enums import double_enums as _enums
from ._setup import need as _need

_OF_ENUM = {
    "profiling_verbosity": ("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
    "hardware_compatibility_level": ("HardwareCompatibilityLevel", "NONE"),
    "runtime_platform": ("RuntimePlatform", "SAME_AS_BUILD"),
    "tiling_optimization_level": ("TilingOptimizationLevel", "NONE"),
    "engine_capability": ("EngineCapability", "STANDARD"),
    "default_device_type": ("DeviceType", "GPU"),
}
_OF_KIND = {
    "builder_optimization_level": (int, 3),
    "avg_timing_iterations": (int, 1),
    "max_aux_streams": (int, -1),
    "max_num_tactics": (int, -1),
    "l2_limit_for_tiling": (int, 0),
    "profile_stream": (int, 0),
    "DLA_core": (int, 0),
    "plugins_to_serialize": (list, []),
}


def _setting(name, check):
    return property(lambda self: self.__dict__["_" + name], lambda self, value: setattr(self, "_" + name, check(value)))


def add_to(owner):
    for name, (kind, _) in _OF_ENUM.items():
        setattr(owner, name, _setting(name, lambda value, kind=kind: _need(value, _enums[kind])))
    for name, (kind, _) in _OF_KIND.items():
        setattr(owner, name, _setting(name, kind))


def defaults():
    chosen = {"_" + name: _enums[kind].__members__[first] for name, (kind, first) in _OF_ENUM.items()}
    return chosen | {"_" + name: kind(first) for name, (kind, first) in _OF_KIND.items()}
