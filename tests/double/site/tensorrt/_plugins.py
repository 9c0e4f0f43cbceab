"""The plugin registry with the plugins for BERT, in their old kind (V2) and the new one (V3)."""

from ._derive import IVersionedInterface as _IVersionedInterface
from ._setup import FAULTS as _FAULTS
from ._setup import NoConstructor as _NoConstructor
from ._setup import complain as _complain
from ._setup import double_calls as _calls
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._types import ILogger as _ILogger
from ._types import PluginFieldCollection as _Fields
from ._types import PluginFieldCollection_ as _FieldsView

_QKV = ("type_id", "hidden_size", "num_heads", "has_mask")
KNOWN = {
    "CustomQKVToContextPluginDynamic": (
        {"1": _QKV, "2": _QKV, "3": ("hidden_size", "num_heads")},
        {"4": _QKV, "5": _QKV, "6": ("hidden_size", "num_heads")},
    ),
    "CustomSkipLayerNormPluginDynamic": (
        {"1": ("type_id", "ld"), "2": ("type_id", "ld"), "3": ("beta", "gamma"), "4": ("beta", "gamma")},
        {"5": ("type_id", "ld"), "6": ("type_id", "ld"), "7": ("beta", "gamma"), "8": ("beta", "gamma")},
    ),
    "CustomEmbLayerNormPluginDynamic": ({"1": (), "2": (), "3": ()}, {"4": (), "5": (), "6": ()}),
}
"""Name -> (V2 ids, V3 ids), each id -> the fields without which no plugin is made."""


class IPluginCreatorInterface(_IVersionedInterface):
    pass


class IPluginV2:
    plugin_type = property(lambda self: self._creator._name)
    plugin_version = property(lambda self: self._creator._version)
    plugin_namespace = property(lambda self: "", lambda self, value: None)
    num_outputs = property(lambda self: 1)


class IPluginV2DynamicExt(IPluginV2):
    pass


class IPluginV3(_IVersionedInterface):
    pass


def _make(kind, creator, name, fields):
    held = {field.name: field._value() for field in _need(fields, (_Fields, _FieldsView))}
    missing = [word for word in creator._required if word not in held]
    if missing:
        _complain(f"{creator._name}: required attributes are missing: {missing}")
        return None
    plugin = kind.__new__(kind)
    plugin._creator, plugin._layer_name, plugin._fields = creator, name, held
    _calls.append(("create_plugin", creator._name, creator._version))
    return plugin


class IPluginCreator(IPluginCreatorInterface):
    name = property(lambda self: self._name)
    plugin_version = property(lambda self: self._version)
    plugin_namespace = property(lambda self: "")

    def create_plugin(self, name, field_collection):
        return _make(IPluginV2DynamicExt, self, name, field_collection)


class IPluginCreatorV3One(IPluginCreatorInterface):
    name = property(lambda self: self._name)
    plugin_version = property(lambda self: self._version)
    plugin_namespace = property(lambda self: "")

    def create_plugin(self, name, field_collection, phase):
        return _make(IPluginV3, self, name, field_collection)


def _creators():
    made = {}
    for name, kinds in KNOWN.items():
        for kind, ids in zip((IPluginCreator, IPluginCreatorV3One), kinds, strict=True):
            if "no_plugins" in _FAULTS or ("v2_plugins" in _FAULTS and kind is IPluginCreatorV3One):
                continue
            for version, required in ids.items():
                creator = kind()
                creator._name, creator._version, creator._required = name, version, required
                made[name, version, ""] = creator
    return made


class IPluginRegistry(_NoConstructor):
    def get_creator(self, type, version, plugin_namespace=""):  # noqa: A002
        return self._creators.get((type, version, plugin_namespace))

    def get_plugin_creator(self, type, version, plugin_namespace=""):  # noqa: A002
        found = self._creators.get((type, version, plugin_namespace))
        return found if isinstance(found, IPluginCreator) else None

    def load_library(self, plugin_path):
        _calls.append(("load_library", plugin_path))
        return object()

    all_creators = property(lambda self: list(self._creators.values()))
    all_creators_recursive = all_creators
    plugin_creator_list = property(lambda self: [c for c in self._creators.values() if isinstance(c, IPluginCreator)])


_only_in_10(IPluginRegistry, "get_plugin_creator", "plugin_creator_list")
_registry = IPluginRegistry._made(_creators={})


def get_plugin_registry():
    return _registry


def init_libnvinfer_plugins(logger, namespace):
    if logger is not None:
        _need(logger, _ILogger)
    _calls.append(("init_plugins",))
    if namespace == "":
        _registry._creators.update(_creators())
    return True
