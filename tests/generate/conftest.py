import pytest

from tests.generate.causal import make_causal
from toolchain.generate.build import build
from toolchain.recipe import Recipe


@pytest.fixture(scope="session", params=["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def built(request, tmp_path_factory):
    """Return a tiny checkpoint, its bundle with INT8 weights beside the FP32 graph, and the record of its build."""
    changes = {"n_layer": 1} if request.param == "gpt2" else {}  # for time
    folder = make_causal(tmp_path_factory.mktemp(request.param), request.param, **changes)
    output = tmp_path_factory.mktemp("bundles") / request.param
    return folder, output, build(Recipe(model=str(folder), task="lm", precision="int8", output=str(output)))
