"""The builder."""

import hashlib as _hashlib

from . import _build, _interrupt
from ._config import IBuilderConfig as _IBuilderConfig
from ._config import new_config as _new_config
from ._config import new_profile as _new_profile
from ._enums import BuilderFlag as _BuilderFlag
from ._enums import flag_set as _flag_set
from ._network import INetworkDefinition as _INetworkDefinition
from ._network import new_network as _new_network
from ._plugins import get_plugin_registry as _get_plugin_registry
from ._runtime import Runtime as _Runtime
from ._setup import FAULTS as _FAULTS
from ._setup import SM as _SM
from ._setup import double_calls as _calls
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._setup import swallow as _swallow
from ._types import ILogger as _ILogger
from ._types import host_memory as _host_memory
from ._types import say as _say

_PHASE, _PART, _STEPS = "Building Engine From Network", "Computing Kernels", 4


class _Cancelled(Exception):  # noqa: N818
    pass


class Builder:
    def __init__(self, logger):
        self._logger = _need(logger, _ILogger)
        self._threads = 1

    logger = property(lambda self: self._logger)
    num_DLA_cores = property(lambda self: 0)  # noqa: N815
    max_DLA_batch_size = property(lambda self: 0)  # noqa: N815
    max_threads = property(lambda self: self._threads, lambda self, value: setattr(self, "_threads", int(value)))
    platform_has_fast_fp16 = property(lambda self: True)
    platform_has_fast_int8 = property(lambda self: True)
    platform_has_tf32 = property(lambda self: float(_SM) >= 8)

    def create_network(self, flags=0):
        return _new_network(self, flags)

    def create_builder_config(self):
        return _new_config(self._logger)

    def create_optimization_profile(self):
        return _new_profile()

    def get_plugin_registry(self):
        return _get_plugin_registry()

    def is_network_supported(self, network, config):
        return not list(_objections(_need(network, _INetworkDefinition), _need(config, _IBuilderConfig)))

    def reset(self):
        pass

    def build_engine_with_config(self, network, config):
        made = self.build_serialized_network(network, config)
        return None if made is None else _Runtime(self._logger).deserialize_cuda_engine(made)

    def build_serialized_network(self, network, config, kernel_text=None):
        _need(network, _INetworkDefinition)
        _need(config, _IBuilderConfig)
        objections = list(_objections(network, config))
        _calls.append(("build", _summary(network, config)))
        if objections:
            _say(self._logger, "ERROR", f"IBuilder::buildSerializedNetwork: Error Code {objections[0]}")
            return None
        try:
            return _host_memory(self._run(network, config))
        except _Cancelled:
            return None

    def _run(self, network, config):
        steps = _Progress(config._monitor)
        try:
            steps.start()
            io = _build.io_of(network)
            steps.done(0)
            scales = _build.scales_of(network, config, io, self._logger)
            steps.done(1)
            _interrupt.arrive()
            self._fail_as_told()
            made = _build.plan(network, config, io, scales, self._logger)
            steps.done(2)
            _remember(config, made)
            steps.done(3)
            return made
        finally:
            steps.finish()

    def _fail_as_told(self):
        if "cancel" in _FAULTS:
            raise _Cancelled
        if "oom" in _FAULTS:
            _say(
                self._logger,
                "ERROR",
                "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory "
                "(Requested size was 17179869184 bytes.)",
            )
            raise _Cancelled
        if "none_plan" in _FAULTS:
            _say(
                self._logger,
                "ERROR",
                "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not "
                "find any implementation for node {ForeignNode[/Add.../MatMul]}.)",
            )
            raise _Cancelled


_only_in_10(Builder, "platform_has_fast_fp16", "platform_has_fast_int8", "platform_has_tf32")


class _Progress:
    """Tells a progress monitor of two phases, one inside the other; it may say stop, and an exception says so too."""

    def __init__(self, monitor):
        self._monitor = monitor
        self._open = []

    def start(self):
        for name, parent in ((_PHASE, None), (_PART, _PHASE)):
            self._call("phase_start", name, parent, _STEPS if parent else 1)
            self._open.append(name)

    def done(self, step):
        if not self._call("step_complete", _PART, step):
            raise _Cancelled
        if step == _STEPS - 1 and not self._call("step_complete", _PHASE, 0):
            raise _Cancelled

    def finish(self):
        while self._open:
            self._call("phase_finish", self._open.pop())

    def _call(self, name, *args):
        if self._monitor is None:
            return True
        method = getattr(self._monitor, name)
        try:
            return _interrupt.call(method, args) if name == "step_complete" else method(*args)
        except BaseException:
            _swallow(name)
            return False


def _remember(config, made):
    """Put the network into the timing cache."""
    if config._timing is not None:
        key = _hashlib.sha256(made).hexdigest()
        _calls.append(("timing", "hit" if key in config._timing._entries else "miss"))
        config._timing._entries.add(key)


def _objections(network, config):
    """Why the builder refuses, one reason after another."""
    if not network.num_inputs or not network.num_outputs:
        yield "4: API Usage Error (Network must have at least one input and one output)"
        return
    flags = [name for name in ("FP16", "INT8", "BF16", "FP8") if _flag_set(config._flags, name)]
    if flags and network._typed():
        yield f"3: API Usage Error (the network is strongly typed: the flags {flags} must not be set)"
    if config._hardware_compatibility_level.name == "AMPERE_PLUS" and float(_SM) < 8:
        yield "9: API Usage Error (AMPERE_PLUS is only supported on Ampere and later)"
    inputs = [entry for entry in _build.io_of(network) if entry["mode"] == "INPUT"]
    dynamic = [entry for entry in inputs if -1 in entry["shape"]]
    if dynamic and not config._profiles:
        yield "4: API Usage Error (Network has dynamic or shape inputs, but no optimization profile has been defined.)"
    profiles = list(enumerate(config._profiles))
    if config._calibration_profile is not None:
        profiles.append(("for calibration", config._calibration_profile))
    for number, profile in profiles:
        yield from _misfits(number, profile, inputs)


def _misfits(number, profile, inputs):
    for entry in inputs:
        given = profile._shapes.get(entry["name"])
        if given is None and -1 in entry["shape"]:
            yield f"4: API Usage Error (input {entry['name']} is dynamic, and profile {number} has no shape for it)"
        for sizes in given or ():
            fits = len(sizes) == len(entry["shape"]) and all(
                b in (-1, a) for a, b in zip(sizes, entry["shape"], strict=True)
            )
            if not fits:
                yield (
                    f"4: API Usage Error ({entry['name']}: profile {number} has {sizes}, "
                    f"which does not match network definition {entry['shape']})"
                )


def _summary(network, config):
    """What a test may want to see of a build."""
    return {
        "flags": sorted(name for name in _BuilderFlag.__members__ if _flag_set(config._flags, name)),
        "profiles": len(config._profiles),
        "typed": network._typed(),
        "level": config._builder_optimization_level,
        "verbosity": config._profiling_verbosity.name,
        "hardware": config._hardware_compatibility_level.name,
        "pools": {pool.name: size for pool, size in config._pools.items()},
    }
