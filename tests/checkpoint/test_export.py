"""Exports agree with PyTorch at every batch size and length, and rows without tokens give finite logits."""

import numpy as np
import onnx
import pytest

from toolchain import graph
from toolchain.checkpoint.export import export
from toolchain.checkpoint.model import find_model
from toolchain.errors import InputError
from toolchain.runtimes import open_runtime

KINDS = ["distilbert", "bert", "roberta"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("length", [2, 17, 128, 512])
def test_batch_and_length_are_dynamic(exported, reference, random_batch, kind, size, length):
    batch = random_batch(kind, size, length)
    with open_runtime("ort", exported[kind]) as infer:
        np.testing.assert_allclose(infer(batch), reference(kind, batch), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_padding_is_finite_and_changes_no_other_row(exported, random_batch, kind):
    batch = random_batch(kind, 3, 17)
    padded = {name: array.copy() for name, array in batch.items()}
    padded["attention_mask"][1] = 0
    with open_runtime("ort", exported[kind]) as infer:
        with_it, without = infer(padded), infer({name: array[[0, 2]] for name, array in batch.items()})
    assert np.isfinite(with_it).all()
    np.testing.assert_allclose(with_it[[0, 2]], without, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_valid_and_has_the_stated_inputs_and_output(exported, kind):
    onnx.checker.check_model(exported[kind], full_check=True)
    model = graph.load(exported[kind])
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]
    assert [value.name for value in model.graph.inputs] == names
    assert {str(value.shape) for value in model.graph.inputs} == {"[batch,sequence]"}
    assert model.opset_imports[""] == 18


@pytest.mark.parametrize("kind", KINDS)
def test_no_constant_is_infinite_in_float16(exported, kind):
    arrays = [graph.constant(value) for value in graph.load(exported[kind]).graph.initializers.values()]
    floats = [array for array in arrays if array.dtype == np.float32]
    assert all(np.isfinite(array.astype(np.float16)).all() for array in floats)


def test_an_architecture_with_its_own_masks_is_exported_with_finite_masks(tmp_path, random_batch):
    import transformers

    config = transformers.DebertaV2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=200
    )
    transformers.DebertaV2ForSequenceClassification(config).save_pretrained(tmp_path)
    source = find_model(str(tmp_path))
    record = export(source, tmp_path / "model.onnx")
    batch = {name: random_batch("distilbert", 3, 9)[name] for name in source.inputs}
    assert record["passes"]["finite_masks"] > 0
    with open_runtime("torch", source) as one, open_runtime("ort", tmp_path / "model.onnx") as other:
        np.testing.assert_allclose(other(batch), one(batch), atol=1e-4)


def test_a_checkpoint_without_a_classifier_is_refused(tiny, tmp_path):
    import transformers

    transformers.DistilBertModel(tiny.new_model("distilbert", 2).config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="fine-tuned for classification"):
        export(find_model(str(tmp_path)), tmp_path / "model.onnx")
