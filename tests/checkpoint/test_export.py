"""Exports agree with PyTorch at every batch size and length, and rows without tokens give finite logits."""

import re

import numpy as np
import onnx
import pytest
import torch

from tests.architectures import edit, make, new_model
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


# Those with masks of their own, those that read the mask as [batch, sequence] only, decoders, and one without a mask.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GPT2", "DebertaV2", "ModernBert", "LayoutLM", "Llama", "FNet"])
def test_other_architectures_are_exported_with_the_mask_that_they_take(kind, tmp_path):
    layers = 2 if kind == "ModernBert" else 1  # its second layer has another attention; the others' are alike
    source = find_model(str(make(tmp_path / "model", kind, num_hidden_layers=layers)))
    export(source, tmp_path / "model.onnx")
    generator = np.random.default_rng(0)
    lengths = np.array([9, 9, 9] if source.facts.equal_length else [9, 4, 7])
    mask = (np.arange(9) < lengths[:, None]).astype(np.int32)
    ids = generator.integers(5, 80, mask.shape).astype(np.int32) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    batch = {name: batch[name] for name in source.inputs}
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(array).long() for name, array in batch.items()}).logits.numpy()
    with open_runtime("torch", source) as one, open_runtime("ort", tmp_path / "model.onnx") as other:
        np.testing.assert_allclose(one(batch), expected, atol=1e-4)
        np.testing.assert_allclose(other(batch), expected, atol=1e-4)


REMOTE = """
import torch
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class OwnConfig(BertConfig):
    model_type = "own"


class OwnForSequenceClassification(BertPreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[:, :, None].float()
        return SequenceClassifierOutput(logits=self.classifier((hidden * kept).sum(1) / kept.sum(1)))
"""


@pytest.mark.slow
def test_a_model_with_its_own_code_that_reads_the_mask_is_exported(tmp_path, random_batch):
    import safetensors.torch

    folder = make(tmp_path / "own", "Bert")
    (folder / "modeling_own.py").write_text(REMOTE)
    classes = {"AutoConfig": "OwnConfig", "AutoModelForSequenceClassification": "OwnForSequenceClassification"}
    auto_map = {name: f"modeling_own.{kind}" for name, kind in classes.items()}
    edit(folder, model_type="own", architectures=["OwnForSequenceClassification"], auto_map=auto_map)
    with pytest.raises(InputError, match="Read the code, and add --trust-remote-code if"):
        export(find_model(str(folder)), tmp_path / "model.onnx")
    source = find_model(str(folder), trust_remote_code=True)
    export(source, tmp_path / "model.onnx")
    batch = {name: random_batch("distilbert", 4, 11)[name] for name in source.inputs}
    bert = new_model("Bert")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    with torch.inference_mode():
        ids, mask = (torch.from_numpy(batch[name]).long() for name in ("input_ids", "attention_mask"))
        hidden = bert.bert(ids, attention_mask=mask).last_hidden_state * mask[:, :, None]
        mean = hidden.sum(1) / mask.sum(1, keepdim=True)
        expected = mean @ weights["classifier.weight"].T + weights["classifier.bias"]
    with open_runtime("ort", tmp_path / "model.onnx") as infer:
        np.testing.assert_allclose(infer(batch), expected.numpy(), atol=1e-4)


def test_a_model_that_cannot_be_exported_is_refused_without_the_exporters_advice(tiny_bert, tmp_path, monkeypatch):
    def refuse(*arguments, **choices):
        raise torch.onnx.errors.OnnxExporterError("\x1b[96mStep 1/3\x1b[0m. Next steps: open an issue") from KeyError(
            "x"
        )

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(InputError) as refused:
        export(find_model(str(tiny_bert)), tmp_path / "model.onnx")
    assert re.fullmatch(
        r"\S+: bert cannot be exported to ONNX .*\(KeyError; run again with -v for .*\)\. Run it in PyTorch .*",
        str(refused.value),
    )
    assert "Next steps" not in str(refused.value)


def test_a_checkpoint_without_a_classifier_is_refused(tiny, tmp_path):
    import transformers

    transformers.DistilBertModel(tiny.new_model("distilbert", 2).config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"DistilBertModel, an encoder without a head, .*fine-tuned for text"):
        export(find_model(str(tmp_path)), tmp_path / "model.onnx")
