"""The rule for the name of a model on a server: what `--name` may be. It is the same for every server."""

import re

from toolchain.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str) -> None:
    """Raise an error if a model's name cannot be the name of a folder and a part of a URL.

    Raises:
        UsageError: the name is too long, or has other characters than letters, digits, '.', '_' and '-'.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: a model cannot have this name. Use up to 100 letters, digits, '.', '_' and '-', "
            "and begin with a letter or a digit."
        )


def image_name(name: str) -> str:
    """Return a model's name in the form that Docker allows for an image: lower-case letters, digits and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
