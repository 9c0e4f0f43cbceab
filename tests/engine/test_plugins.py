"""The version of a plugin is the first that the registry has, the newer interface first."""

from types import SimpleNamespace

import pytest

from toolchain.engine.plugins import FIXED_LENGTH, VARIABLE_LENGTH, plugin_versions
from toolchain.errors import MachineError
from toolchain.graph.plugin_graph import QKV, SKIP_NORM


def tensorrt(*known):
    def creator(name, version, namespace):
        return object() if (name, version) in known and namespace == "" else None

    registry = SimpleNamespace(get_creator=creator)
    return SimpleNamespace(__version__="10.0", get_plugin_registry=lambda: registry)


@pytest.mark.parametrize("kinds", [VARIABLE_LENGTH, FIXED_LENGTH])
def test_the_first_known_version_of_each_is_chosen(kinds):
    every = [(name, version) for name, versions in kinds.items() for version in versions]
    assert plugin_versions(tensorrt(*every), kinds) == {name: versions[0] for name, versions in kinds.items()}
    old = [(name, versions[-1]) for name, versions in kinds.items()]
    assert plugin_versions(tensorrt(*old), kinds) == dict(old)


def test_a_missing_plugin_is_a_machine_error():
    with pytest.raises(MachineError, match=f"lacks the plugin {SKIP_NORM} of version 6 or 2"):
        plugin_versions(tensorrt((QKV, "5")), VARIABLE_LENGTH)
