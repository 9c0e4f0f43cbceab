"""The rule for the names of models, the same for every server."""

import re

from toolchain.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str) -> None:
    """Refuse a model's name that is not safe as the name of a folder and in a URL.

    Raises:
        UsageError: the name is not safe.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: not a name for a model. Use up to 100 letters, digits, '.', '_' and '-', "
            "a letter or a digit first."
        )


def image_name(name: str) -> str:
    """Return a model's name as Docker allows it in the name of an image: lower-case letters, digits and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
