"""Finds NVIDIA's BERT plugins in TensorRT's registry, in the versions that this release has.

Each plugin exists twice: as IPluginV3, which later releases keep, and as the older IPluginV2 with the same attributes.
"""

from typing import Any

from toolchain.errors import MachineError
from toolchain.graph.plugin_graph import QKV, SKIP_NORM

# Plugin name -> its usable versions, the preferred one first.
Kinds = dict[str, tuple[str, ...]]

# Plugins for rows that are concatenated without padding (graph/plugin_graph.py).
VARIABLE_LENGTH: Kinds = {QKV: ("5", "2"), SKIP_NORM: ("6", "2")}

# Plugins for rows of one length. They also run in float32, so that a calibrator can run them (static.py).
FIXED_LENGTH: Kinds = {QKV: ("4", "1"), SKIP_NORM: ("5", "1")}


def find_creator(trt: Any, name: str, version: str) -> Any:
    """Return the creator of a plugin, or None if the registry lacks it. TensorRT 8 has only the older look-up."""
    registry = trt.get_plugin_registry()
    find = getattr(registry, "get_creator", None) or getattr(registry, "get_plugin_creator", None)
    return find(name, version, "") if find else None


def plugin_versions(trt: Any, kinds: Kinds) -> dict[str, str]:
    """Return plugin name -> the first version in `kinds` that TensorRT's registry has.

    `init_libnvinfer_plugins` must have been called before.

    Raises:
        MachineError: the registry lacks every version of a plugin.
    """
    found = {}
    for name, versions in kinds.items():
        known = [version for version in versions if find_creator(trt, name, version) is not None]
        if not known:
            raise MachineError(
                f"--attention plugin: TensorRT {trt.__version__} lacks the plugin {name} of version "
                f"{' or '.join(versions)}. Leave the option out: TensorRT then fuses attention itself."
            )
        found[name] = known[0]
    return found
