"""The network API: each call goes to the class Network of tests/network_double.py, which computes itself in numpy."""

import pickle as _pickle
from types import SimpleNamespace as _SimpleNamespace

import numpy as _np

from . import _graph
from ._plugins import IPluginV2 as _IPluginV2
from ._plugins import IPluginV3 as _IPluginV3
from ._setup import need as _need
from ._types import Weights as _Weights

METHODS = (
    *("add_input", "add_constant", "add_gather", "add_shuffle", "add_convolution_nd", "add_elementwise"),
    *("add_unary", "add_activation", "add_plugin_v2", "add_plugin_v3"),
)
KINDS = {
    "Constant": "CONSTANT",
    "Gather": "GATHER",
    "Shuffle": "SHUFFLE",
    "Convolution": "CONVOLUTION",
    "ElementWise": "ELEMENTWISE",
    "Unary": "UNARY",
    "Activation": "ACTIVATION",
    "Plugin": "PLUGIN_V3",
}
"""The words of network_double.py -> the names of LayerType."""


def _module():
    module = _graph.by_path("network_double.py")
    if module is None:
        raise NotImplementedError("the network API of the double is tests/network_double.py, and that is absent")
    return module


def _seen(method, value):
    """An argument as Network takes it: arrays as weights, a plugin as its name, version and fields."""
    if isinstance(value, _np.ndarray):
        return _Weights(value)
    if isinstance(value, (_IPluginV2, _IPluginV3)):
        _need(value, _IPluginV2 if method == "add_plugin_v2" else _IPluginV3)
        maker = value._creator
        return _SimpleNamespace(plugin_type=maker._name, plugin_version=maker._version, fields=value._fields)
    return value


def _forward(name):
    def method(self, *args, **kwargs):
        if self._writing is None:
            self._writing = _module().Network()
        args, kwargs = [_seen(name, value) for value in args], {k: _seen(name, v) for k, v in kwargs.items()}
        return getattr(self._writing, name)(*args, **kwargs)

    method.__name__ = name
    return method


def add_to(owner):
    for name in METHODS:
        setattr(owner, name, _forward(name))


def pack(network):
    return _pickle.dumps(network)


def unpack(data):
    _module()
    return _pickle.loads(data)
