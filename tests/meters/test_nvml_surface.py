"""The names that are used, and those that the scripted library exports, exist in the real nvidia-ml-py."""

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


def test_the_list_of_modules_that_use_nvml_is_complete():
    assert {"nvml.py", "gpu_state.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_name_of_nvidia_ml_py_that_is_used_exists(path):
    used = set(NAME.findall(path.read_text())) - FIELDS
    assert [name for name in used if not hasattr(pynvml, name)] == []


def test_every_error_with_a_reason_exists():
    assert [name for name in REASONS if not hasattr(pynvml, f"NVML_ERROR_{name}")] == []


def test_the_scripted_library_exports_the_functions_that_are_looked_up(root):
    source = (root / "tests/nvml/fakenvml.c").read_text()
    given = re.findall(r"^(?:int |const char \*|READING\()(nvml\w+)", source, re.MULTILINE)
    assert len(given) == len(set(given)) > 25
    assert set(given) <= LOOKED_UP  # so no nvmlInit either, by which torch would count these GPUs as its own
