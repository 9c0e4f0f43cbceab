"""The token's file, and hosts that only this machine can reach."""

import os

import pytest

from toolchain.errors import InputError
from toolchain.serve.auth import is_loopback, read_token
from toolchain.serve.server import ServerOptions


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_a_host_is_loopback_if_only_this_machine_can_reach_it(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize("text", ["", "short", "two words that are long", "\N{SNOWMAN}" * 20])
def test_a_file_without_a_token_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="token"):
        read_token(tmp_path / "token")


def test_a_token_is_read_without_its_line_break(tmp_path):
    (tmp_path / "token").write_text("a" * 16 + "\n")
    assert read_token(tmp_path / "token") == "a" * 16


def test_the_default_host_is_loopback():
    assert is_loopback(ServerOptions().host)


def test_a_token_file_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "token")
    with pytest.raises(InputError, match="token: this is not a regular file"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize(("mode", "remarks"), [(0o600, 0), (0o644, 1)])
def test_a_token_that_everybody_can_read_is_remarked_upon(tmp_path, caplog, mode, remarks):
    (tmp_path / "token").write_text("a" * 16)
    (tmp_path / "token").chmod(mode)
    assert read_token(tmp_path / "token") == "a" * 16
    assert [record.getMessage() for record in caplog.records].count(
        f"{tmp_path}/token: every user of this machine can read the token. Run: chmod 600 {tmp_path}/token"
    ) == remarks
