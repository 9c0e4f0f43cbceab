"""What a model may be called: one rule, whichever server it goes into."""

import re

from toolchain.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str) -> None:
    """Refuse a model's name that is no safe folder, with a part's name behind it, and no safe part of a URL.

    Raises:
        UsageError: it is none.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: no name of a model. Use up to 100 letters, digits, '.', '_' and '-', "
            "a letter or a digit first."
        )


def image_name(name: str) -> str:
    """Return a model's name as Docker takes it in that of an image: small letters and digits, '-' between."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
