"""A graph of a language model gives the logits of PyTorch, and its text that of `model.generate`."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.generate.causal import make_causal
from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.checkpoint.model import find_model
from toolchain.errors import GateError, InputError, MachineError, UsageError
from toolchain.generate import parity
from toolchain.generate.build import build
from toolchain.generate.causal import load_causal, weight_bytes
from toolchain.generate.decode_ort import open_graph
from toolchain.generate.export import _warn_of_keys, require_exporter
from toolchain.generate.measure import run
from toolchain.generate.opened import open_generator
from toolchain.generate.settings import Settings
from toolchain.generate.weight_only import quantize_weights, step_bytes
from toolchain.recipe import Recipe

# Kind -> its GEMMs with weights: four or seven a layer, and the head, which GPT-2 ties to its table of tokens.
PRODUCTS = {"gpt2": 5, "llama": 15}
NEW = 12
WORDS = ["good", "story", "about", "the", "dark", "sea", "and", "a", "slow", "city"]
PROMPTS = [" ".join(np.random.default_rng(seed).permutation(WORDS)[: 1 + seed % 7]) for seed in range(50)]


def test_logits_are_those_of_pytorch(built):
    folder, output, done = built
    assert done["done"] == ["export", "weights"]
    assert done["export"]["parity"]["label_agreement"] == 1
    layers = len(list(graph.nodes(graph.load(output / "model.onnx"), "Softmax")))
    assert done["export"]["passes"] == {"fold_keys": layers}
    model = load_causal(find_model(str(folder)), device="cpu")
    found = parity.compare(model, open_graph(output / "model.onnx"), batches=20, seed=1)
    assert found.max_abs_logit_difference <= 1e-4 * found.largest_logit


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("count", [pytest.param(8, marks=pytest.mark.short), pytest.param(50, marks=pytest.mark.slow)])
def test_texts_are_those_of_generate_with_and_without_a_cache(built, size, count):
    folder, output, _ = built
    source = find_model(str(folder))
    model = load_causal(source, device="cpu")
    expected = []
    for prompt in PROMPTS[:count]:
        ids = torch.tensor([source.tokenizer(prompt)["input_ids"]])
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
        expected.append(made[0, ids.shape[1] :].tolist())
    fp32 = Recipe(device="cpu", file="model.onnx")
    settings = Settings(max_new_tokens=NEW, cache="none,dynamic", batch_size=size, rounds=1)
    record = run(open_generator(str(output), fp32, backend=None), PROMPTS[:count], settings)
    assert len(set(map(tuple, expected))) > count // 2
    assert [text["tokens"] for text in record["texts"]] == expected
    assert [ratio["tokens_equal"] for ratio in record["ratios"]] == [True]
    assert (record["backend"], record["precision"]) == ("ort", "fp32")


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_rounded_to_the_nearest_of_their_block_in_every_gemm_and_the_head(built, bits):
    _, output, _ = built
    model, known = graph.load(output / "model.onnx"), graph.load(output / "model.onnx")
    record = quantize_weights(model, bits, where="it")
    assert record["share"] == 1
    assert not list(graph.nodes(model, "Gemm"))
    names = [one["name"] for one in record["products"]]
    assert len(names) == PRODUCTS[output.name]
    weights = {name: value.const_value.numpy() for name, value in known.graph.initializers.items()}
    left = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    for name in names:
        packed, scales, zeros = (left[f"{name}.{part}"] for part in ("packed", "scales", "zero_points"))
        numbers = packed.astype(np.float32)
        if bits == 4:
            both = np.stack([packed & 15, packed >> 4], axis=-1)
            numbers = both.reshape(*packed.shape[:2], -1).astype(np.float32)
            zeros = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(len(zeros), -1)[:, : scales.shape[1]]
        found = ((numbers - zeros[..., None]) * scales[..., None]).reshape(len(packed), -1)
        expected = weights[name] if weights[name].shape[0] == len(found) else weights[name].T
        if found.shape != expected.shape or not np.allclose(found, expected, atol=0.51 * scales.max()):
            expected = weights[name].T
        assert np.all(np.abs(found - expected) <= 0.51 * np.repeat(scales, 32, axis=1))


def test_a_step_reads_a_quarter_of_the_weights_in_int8_and_the_count_is_that_of_pytorch(built):
    folder, output, _ = built
    known = graph.load(output / "model.onnx")
    read = step_bytes(known)
    # A new model's norms are equal, as are its biases, and the graph holds them once.
    assert read == pytest.approx(weight_bytes(load_causal(find_model(str(folder)), device="cpu")), rel=0.02)
    quantize_weights(known, 8, where="it")
    assert 0.25 < step_bytes(known) / read < 0.35


def test_too_few_quantized_weights_are_refused_with_their_names(built):
    _, output, _ = built
    model = graph.load(output / "model.onnx")
    for node in list(graph.nodes(model, "Gemm", "MatMul")):
        if node.op_type == "Gemm" or node.inputs[1].producer() is None:
            node.attributes["alpha"] = ir.Attr("alpha", ir.AttributeType.FLOAT, 0.5)
    with pytest.raises(GateError, match=r"it: only \d+% of the weights in GEMMs.*scales or transposes.*fp32"):
        quantize_weights(model, 8, where="it")


def test_the_bundle_is_refused_to_other_commands_and_options_of_encoders_to_it(built):
    folder, output, _ = built
    with pytest.raises(InputError, match="this bundle has a language model"):
        open_bundle(output)
    with pytest.raises(UsageError, match="--max-drop: this option is not for --task lm"):
        build(Recipe(model=str(folder), task="lm", max_drop=0.5))
    with pytest.raises(UsageError, match="--cache static"):
        open_generator(str(output), Recipe(device="cpu"), backend=None, cache=("static",))
    with pytest.raises(UsageError, match=r"--backend ort: .* is not a bundle"):
        open_generator(str(folder), Recipe(), backend="ort")


def test_a_rope_that_changes_with_the_length_and_a_sliding_window_are_refused(tmp_path):
    window = make_causal(tmp_path / "window", "mistral", sliding_window=64)
    rope = make_causal(tmp_path / "rope", "llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0})
    for folder, why in ((window, "mistral"), (rope, "RoPE is of type dynamic")):
        with pytest.raises(InputError, match=f"{why}.*--backend torch"):
            build(Recipe(model=str(folder), task="lm", output=str(tmp_path / "bundle")))


def test_attentions_whose_keys_are_moved_are_counted(caplog):
    _warn_of_keys(5, 6, "./gpt")
    _warn_of_keys(6, 6, "./other")
    assert caplog.messages == [
        "./gpt: 5 of 6 attention layers read cached keys in place; the others transpose all keys in each step, which "
        "takes longer"
    ]


def test_an_older_transformers_lacks_the_exporter(monkeypatch):
    monkeypatch.setattr("toolchain.generate.export.version_of", lambda package: "5.22.1")
    with pytest.raises(MachineError, match=r"needs transformers 5\.23 or later.*5\.22\.1"):
        require_exporter()
