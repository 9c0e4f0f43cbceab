import json

import pytest

from tests.generate.causal import make_causal
from toolchain.generate.build import build
from toolchain.recipe import Recipe


@pytest.fixture(scope="session", params=["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def built(request, once):
    """Return a tiny checkpoint, its bundle with INT8 weights beside the FP32 graph, and the record of its build."""

    def fill(folder):
        changes = {"n_layer": 1} if request.param == "gpt2" else {}  # for time
        model = make_causal(folder / "model", request.param, **changes)
        done = build(Recipe(model=str(model), task="lm", precision="int8", output=str(folder / request.param)))
        (folder / "done.json").write_text(json.dumps(done))

    folder = once(f"causal-{request.param}", fill)
    return folder / "model", folder / request.param, json.loads((folder / "done.json").read_text())
