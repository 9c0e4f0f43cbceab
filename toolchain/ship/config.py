"""The text of a config.pbtxt, and that text read back."""

import re
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from toolchain.errors import InputError
from toolchain.ship.schema import message_class

CONFIG = "config.pbtxt"

Values = dict[str, Any]
"""A ModelConfig, or a part of it, by its fields' names; enumerations are texts, maps are dicts."""


def config_text(values: Values) -> str:
    """Return `values` as protobuf text, as Triton reads it; every text in it is escaped."""
    message = json_format.ParseDict(values, message_class()())
    return str(text_format.MessageToString(message, as_utf8=False))


def parse(text: str) -> Any:
    """Return the ModelConfig message of a text; text_format.ParseError if there is none in it."""
    return text_format.Parse(text, message_class()())


def read_config(file: Path) -> Any:
    """Return the ModelConfig message of a config.pbtxt.

    Raises:
        InputError: it is missing, cannot be read, is no text, or has a field that Triton does not know or a value of
            the wrong type.
    """
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: missing. Write it, or make the repository again.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}. Mend it.") from None
    except (UnicodeDecodeError, text_format.ParseError) as error:
        what = re.sub(r'"inference\.(\w+)"', r"\1", str(error)).rstrip(".")
        raise InputError(f"{file}: not a model's configuration: {what}. Mend it.") from None
