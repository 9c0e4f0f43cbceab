"""The names that we use, and those that the scripted library gives, are the real nvidia-ml-py's."""

import re
from pathlib import Path

import pynvml
import pytest

import toolchain.meters
from toolchain.meters.nvml import REASONS

NAME = re.compile(r"\b(?:nvml[A-Z]\w+|NVML_[A-Z]\w*[A-Z])\b")
MODULES = sorted(path for path in Path(toolchain.meters.__file__).parent.glob("*.py") if NAME.search(path.read_text()))
LOOKED_UP = set(re.findall(r'_nvmlGetFunctionPointer\("(\w+)"\)', Path(pynvml.__file__).read_text()))
FIELDS = {name for name, _ in pynvml.c_nvmlFieldValue_t._fields_}


def test_the_modules_are_those_that_speak_of_nvml():
    assert {"nvml.py", "gpu_state.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_name_that_we_use_is_there(path):
    used = set(NAME.findall(path.read_text())) - FIELDS
    assert [name for name in used if not hasattr(pynvml, name)] == []


def test_every_error_that_has_a_reason_is_there():
    assert [name for name in REASONS if not hasattr(pynvml, f"NVML_ERROR_{name}")] == []


def test_what_the_scripted_library_gives_is_what_is_looked_up(root):
    source = (root / "tests/nvml/fakenvml.c").read_text()
    given = re.findall(r"^(?:int |const char \*|READING\()(nvml\w+)", source, re.MULTILINE)
    assert len(given) == len(set(given)) > 25
    assert set(given) <= LOOKED_UP  # so no nvmlInit either, by which torch would count these GPUs as its own
