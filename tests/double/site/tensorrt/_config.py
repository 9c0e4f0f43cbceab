"""What a build is told: flags, limits, profiles, timing cache."""

from . import _settings
from ._calibrate import IInt8Calibrator as _IInt8Calibrator
from ._derive import IProgressMonitor as _IProgressMonitor
from ._enums import BuilderFlag as _BuilderFlag
from ._enums import double_enums as _enums
from ._setup import SM as _SM
from ._setup import VERSION as _VERSION
from ._setup import NoConstructor as _NoConstructor
from ._setup import buffer as _buffer
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._setup import only_in_11 as _only_in_11
from ._types import Dims as _Dims
from ._types import host_memory as _host_memory
from ._types import say as _say


class IOptimizationProfile(_NoConstructor):
    def set_shape(self, input, min, opt, max):  # noqa: A002
        least, best, most = (_Dims(sizes) for sizes in (min, opt, max))
        for word, sizes in (("min", least), ("opt", best), ("max", most)):
            if len(sizes) != len(least) or any(size < 0 for size in sizes):
                raise ValueError(f"Shape provided for {word} is inconsistent with other shapes.")
        if not all(a <= b <= c for a, b, c in zip(least, best, most, strict=True)):
            raise ValueError("Shape provided for max is inconsistent with other shapes.")
        self._shapes[input] = (least, best, most)

    def get_shape(self, input):  # noqa: A002
        return list(self._shapes.get(input, ()))

    def set_shape_input(self, input, min, opt, max):  # noqa: A002
        self._values[input] = [list(min), list(opt), list(max)]

    def get_shape_input(self, input):  # noqa: A002
        return self._values.get(input, [])

    extra_memory_target = property(
        lambda self: self._extra_memory_target, lambda self, value: setattr(self, "_extra_memory_target", float(value))
    )
    profile_stream = property(lambda self: 0)

    def __bool__(self):
        return bool(self._shapes or self._values)


def new_profile():
    return IOptimizationProfile._made(_shapes={}, _values={}, _extra_memory_target=1.0)


_only_in_11(IOptimizationProfile, "profile_stream")


class ITimingCache(_NoConstructor):
    """Its bytes: the version and the SM they hold for, and the digest of each network timed."""

    def serialize(self):
        return _host_memory("\n".join([f"timing {self._version} {self._sm}", *sorted(self._entries)]).encode())

    def combine(self, input_cache, ignore_mismatch):
        if not (ignore_mismatch or (input_cache._version, input_cache._sm) == (self._version, self._sm)):
            return False
        self._entries |= input_cache._entries
        return True

    def reset(self):
        self._entries = set()
        return True


class IBuilderConfig(_NoConstructor):
    def set_flag(self, flag):
        self._flags |= 1 << int(_need(flag, _BuilderFlag))

    def clear_flag(self, flag):
        self._flags &= ~(1 << int(_need(flag, _BuilderFlag)))

    def get_flag(self, flag):
        return bool(self._flags >> int(_need(flag, _BuilderFlag)) & 1)

    flags = property(lambda self: self._flags, lambda self, value: setattr(self, "_flags", int(value)))

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[_need(pool, _enums["MemoryPoolType"])] = int(pool_size)

    def get_memory_pool_limit(self, pool):
        return self._pools.get(_need(pool, _enums["MemoryPoolType"]), 15 << 30)

    def set_tactic_sources(self, tactic_sources):
        self._tactic_sources = int(tactic_sources)
        return True

    def get_tactic_sources(self):
        return self._tactic_sources

    def set_preview_feature(self, feature, enable):
        self._preview[_need(feature, _enums["PreviewFeature"])] = bool(enable)

    def get_preview_feature(self, feature):
        return self._preview.get(feature, False)

    def create_timing_cache(self, serialized_timing_cache):
        head, *entries = _buffer(serialized_timing_cache).decode(errors="replace").split("\n")
        words = head.split() if head else ["timing", _VERSION, _SM]
        if len(words) != 3 or words[0] != "timing":
            _say(self._logger, "ERROR", "IBuilderConfig::createTimingCache: Error Code 1: the timing cache is damaged")
            return None
        return ITimingCache._made(_version=words[1], _sm=words[2], _entries=set(entries))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._version != _VERSION or (cache._sm != _SM and not ignore_mismatch):
            _say(self._logger, "WARNING", f"The timing cache is for {cache._version} on {cache._sm}, and is not used.")
            return False
        self._timing = cache
        return True

    def get_timing_cache(self):
        return self._timing

    def add_optimization_profile(self, profile):
        if not _need(profile, IOptimizationProfile):
            _say(self._logger, "ERROR", "IBuilderConfig::addOptimizationProfile: Error Code 3: the profile is invalid")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    num_optimization_profiles = property(lambda self: len(self._profiles))

    def set_calibration_profile(self, profile):
        self._calibration_profile = _need(profile, IOptimizationProfile)
        return bool(profile)

    def get_calibration_profile(self):
        return self._calibration_profile

    def set_quantization_flag(self, flag):
        self._quantization_flags |= 1 << int(flag)

    def clear_quantization_flag(self, flag):
        self._quantization_flags &= ~(1 << int(flag))

    def get_quantization_flag(self, flag):
        return bool(self._quantization_flags >> int(flag) & 1)

    quantization_flags = property(
        lambda self: self._quantization_flags, lambda self, value: setattr(self, "_quantization_flags", int(value))
    )
    int8_calibrator = property(
        lambda self: self._calibrator,
        lambda self, value: setattr(self, "_calibrator", value and _need(value, _IInt8Calibrator)),
    )
    algorithm_selector = property(lambda self: None)
    progress_monitor = property(
        lambda self: self._monitor,
        lambda self, value: setattr(self, "_monitor", value and _need(value, _IProgressMonitor)),
    )

    def reset(self):
        self.__dict__.update(_fresh(self._logger))


_settings.add_to(IBuilderConfig)
_only_in_10(
    IBuilderConfig,
    *("set_calibration_profile", "get_calibration_profile", "int8_calibrator", "algorithm_selector"),
    *("set_quantization_flag", "clear_quantization_flag", "get_quantization_flag", "quantization_flags"),
)


def _fresh(logger):
    return {
        "_logger": logger,
        "_flags": 1 << int(_BuilderFlag.TF32),  # TF32 is on until it is cleared
        "_pools": {},
        "_tactic_sources": sum(1 << int(source) for source in _enums["TacticSource"].__members__.values()),
        "_preview": {},
        "_timing": None,
        "_profiles": [],
        "_calibration_profile": None,
        "_quantization_flags": 0,
        "_calibrator": None,
        "_monitor": None,
        **_settings.defaults(),
    }


def new_config(logger):
    return IBuilderConfig._made(**_fresh(logger))
