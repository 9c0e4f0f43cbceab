"""One rule for a model's name, at every door."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.bundle.names import NAME, check_name, image_name
from toolchain.cli import main
from toolchain.errors import UsageError

DOCKER = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
"""A part of an image's name, as Docker's reference for `docker image tag` has it."""


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".hidden", "-flag", "_", "é", "a\n", "a" * 101])
def test_what_is_no_name(name):
    with pytest.raises(UsageError, match="a model cannot have this name"):
        check_name(name)


@given(st.from_regex(NAME, fullmatch=True))
def test_every_name_makes_one_of_an_image(name):
    check_name(name)
    assert re.fullmatch(DOCKER, image_name(name))


@pytest.mark.parametrize(
    "command", [["ship", "triton", "-o", "made"], ["ship", "service", "-o", "made"], ["serve", "--http-port", "0"]]
)
def test_every_command_refuses_it_in_the_same_words(demo_bundle, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(demo_bundle), "--name", "a b"]) == 2
    assert "--name a b: a model cannot have this name. Use up to 100 letters" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
