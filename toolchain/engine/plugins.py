"""Which versions of NVIDIA's BERT plugins this TensorRT has, asked of its registry.

Each kind exists twice: as IPluginV3, which later releases keep, and as the older IPluginV2 with the same attributes.
"""

from typing import Any

from toolchain.errors import MachineError
from toolchain.graph.plugin_graph import QKV, SKIP_NORM

Kinds = dict[str, tuple[str, ...]]
"""Plugin name -> its versions, the one to prefer first."""

VARIABLE_LENGTH: Kinds = {QKV: ("5", "2"), SKIP_NORM: ("6", "2")}
"""Rows one after another without padding (graph/packed.py)."""

FIXED_LENGTH: Kinds = {QKV: ("4", "1"), SKIP_NORM: ("5", "1")}
"""Rows of one length, and in float32 too: what can be calibrated (static.py)."""


def plugin_versions(trt: Any, kinds: Kinds) -> dict[str, str]:
    """Return plugin name -> the first version of it that the registry has; plugins must have been initialised.

    Raises:
        MachineError: it has none of a plugin.
    """
    registry = trt.get_plugin_registry()
    found = {}
    for name, versions in kinds.items():
        known = [version for version in versions if registry.get_creator(name, version, "") is not None]
        if not known:
            raise MachineError(
                f"--attention plugin: TensorRT {trt.__version__} has no {name} of version {' or '.join(versions)}. "
                "Leave it out: TensorRT then fuses attention itself."
            )
        found[name] = known[0]
    return found
