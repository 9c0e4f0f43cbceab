"""The options of `toolchain serve`: their numbers, and their documented defaults."""

import argparse
import re

import pytest

from toolchain.cli.serve import LIMITS, serve_arguments
from toolchain.serve.limits import DEFAULTS


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    serve_arguments(parser)
    return parser


def test_numbers_are_ascii_digits(parser):
    given = parser.parse_args(["bundle", "--http-port", "65535", "--max-batch", "007"])
    assert (given.http_port, given.max_batch) == (65535, 7)


@pytest.mark.parametrize("text", ["²", "٣", "+3", "3.0", " 3", "", "-1", "1_0", "9" * 5000])
@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--max-batch", "--instances", "--cache"])
def test_a_value_that_is_not_a_count_is_refused(parser, capsys, option, text):
    with pytest.raises(SystemExit):
        parser.parse_args(["bundle", f"{option}={text}"])
    assert re.search(rf"argument {option}: .* is not a (port|whole number above 0)", capsys.readouterr().err)


def test_help_and_guide_give_the_defaults(parser, root):
    shown, guide = " ".join(parser.format_help().split()), (root / "docs/guides/serving.md").read_text(encoding="utf-8")
    for name, (limit, _, text) in LIMITS.items():
        default = f"{getattr(DEFAULTS, limit):.12g}"
        assert f"{text} (default {default})" in shown
        assert f"| `--{name.replace('_', '-')}` | {default} |" in guide
