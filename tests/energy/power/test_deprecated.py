"""`from toolchain import power` works until 0.2, with a warning."""

import sys

import pytest


def test_the_old_name_is_the_module_and_warns():
    import toolchain

    with pytest.warns(DeprecationWarning, match=r"toolchain\.power is now toolchain\.energy\.power"):
        from toolchain import power
    assert power is sys.modules["toolchain.energy.power"]
    assert "power" not in vars(toolchain)
