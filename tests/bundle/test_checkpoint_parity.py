"""Graphs are compared with the checkpoint, which PyTorch runs once on each batch."""

from toolchain.bundle import checkpoint_parity
from toolchain.bundle.checkpoint_parity import compare_with_checkpoint
from toolchain.bundle.resolved_recipe import resolve
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime


def test_a_second_graph_is_compared_with_the_logits_that_are_known(begun, tiny_distilbert, tmp_path, monkeypatch):
    file, opened = begun("fp32", tmp_path / "bundle") / "model.onnx", []

    def counted(backend, model, **choices):
        opened.append(backend)
        return open_runtime(backend, model, **choices)

    monkeypatch.setattr(checkpoint_parity, "open_runtime", counted)
    resolved = resolve(Recipe.make({"model": str(tiny_distilbert), "precision": "fp32", "output": str(tmp_path)}))
    first, second = compare_with_checkpoint(resolved, file), compare_with_checkpoint(resolved, file)
    assert first == second
    assert sorted(opened) == ["ort", "ort", "torch"]
    compare_with_checkpoint(resolved, file, ("another text",))
    assert opened.count("torch") == 2
