"""The double of TensorRT has no name that the real bindings lack."""

import json
from pathlib import Path

import pytest
import real
import surface

SITE = Path(__file__).parent.parent / "double" / "site"


@pytest.mark.parametrize("major", [8, 10, 11])
def test_the_double_has_no_name_of_its_own(major: int) -> None:
    if not (SITE / "tensorrt" / "__init__.py").is_file():
        pytest.skip(f"{SITE}/tensorrt is not there yet")
    # The double comes first on the path, so the empty libraries around it do no harm.
    settings = {"PYTHONPATH": f"{SITE}:{real.ROOT}", "TRT_DOUBLE_VERSION": real.VERSIONS[major]}
    done = real.run(major, str(real.HERE / "surface.py"), env=settings)
    assert done.returncode == 0, done.stderr
    assert surface.extra_names(json.loads(done.stdout), real.surface(major)) == []


DOUBLE = """
import enum
import os
from pathlib import Path

class BuilderFlag(enum.IntEnum):
    FP16 = 0
    FAST = 1

class Builder:
    max_threads = 1
    def __init__(self, logger):
        self._logger = self.double_calls = self.speed = None
    def create_network(self, flags=0): ...
    def double_reset(self): ...

def double_switch(): ...
class Engine: ...
float16 = BuilderFlag.FP16
float17 = BuilderFlag.FP16
"""


def test_a_name_that_a_double_invents_is_found(tmp_path: Path) -> None:
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(DOUBLE)
    done = real.run(10, str(real.HERE / "surface.py"), env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    found = surface.extra_names(json.loads(done.stdout), real.surface(10))
    assert found == ["Builder.speed", "BuilderFlag.FAST", "Engine", "float17"]
    assert "BuilderFlag.FP16" in surface.extra_names(json.loads(done.stdout), real.surface(11))
