"""Makes the text of config.pbtxt, the configuration of one Triton model, and reads such files.

models.py decides what a configuration contains, and install.py writes the file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from toolchain.base.files import open_file
from toolchain.errors import InputError
from toolchain.serve.proto import MESSAGES

CONFIG = "config.pbtxt"

# A ModelConfig message, or a part of one, as protobuf's JSON: fields by name, enumeration values as text, maps as
# dicts. The schema is serve/proto/model_config.proto, and `config_text` refuses a dict that does not follow it.
ConfigJson = dict[str, Any]

ModelConfig: Any = MESSAGES["inference.ModelConfig"]

# The message class of an instance group. Its attributes KIND_CPU, KIND_GPU and so on are the values of the enumeration.
InstanceGroup: Any = MESSAGES["inference.ModelInstanceGroup"]

_DATA_TYPES = ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"]


def config_text(config: ConfigJson) -> str:
    """Return a configuration as protobuf text, which Triton reads; all strings in it are escaped to ASCII."""
    message = json_format.ParseDict(config, ModelConfig())
    return str(text_format.MessageToString(message, as_utf8=False))


def parse(text: str) -> Any:
    """Return the ModelConfig message of a protobuf text.

    Raises:
        text_format.ParseError: the text does not follow the schema.
    """
    return text_format.Parse(text, ModelConfig())


def read_config(file: Path) -> Any:
    """Return the ModelConfig message of a config.pbtxt.

    Raises:
        InputError: the file is missing, not a regular file, cannot be read, is not text, or does not follow Triton's
            schema: it has an unknown field or a value of the wrong type.
    """
    try:
        with open_file(file) as opened:
            return parse(opened.read().decode())
    except FileNotFoundError:
        raise InputError(f"{file}: the file is missing. Write it, or ship the bundle again.") from None
    except OSError as error:
        raise InputError(f"{file}: the file cannot be read: {error.strerror}. Fix the file.") from None
    except (UnicodeDecodeError, text_format.ParseError) as error:
        fault = re.sub(r'"inference\.([\w.]+)"', r"\1", str(error)).rstrip(".")
        raise InputError(f"{file}: this is not a model configuration: {fault}. Fix the file.") from None


def type_name(number: int) -> str:
    """Return the name of the value `number` of Triton's enum DataType, such as TYPE_INT32."""
    return str(_DATA_TYPES.values_by_number[number].name)


def dims_text(dims: Sequence[int]) -> str:
    """Return dimensions in brackets, such as [-1, 2]."""
    return str([int(size) for size in dims])
