"""The text is that of `model.generate` one prompt at a time; times and bytes are those that their definitions give."""

import numpy as np
import pytest
import torch

from tests.generate.causal import make_causal
from toolchain.checkpoint.model import find_model
from toolchain.generate.causal import load_causal, open_torch, weight_bytes
from toolchain.generate.generator import Generated
from toolchain.generate.measure import Timed, predict_ratio, run
from toolchain.generate.prompts import PromptBatch
from toolchain.generate.settings import Settings

KINDS = ["gpt2", pytest.param("llama", marks=pytest.mark.slow)]
NEW = 12
WORDS = ["good", "story", "about", "the", "dark", "sea", "and", "a", "slow", "city"]
# Of one to seven words, so that batches have padded positions.
PROMPTS = [" ".join(np.random.default_rng(seed).permutation(WORDS)[: 1 + seed % 7]) for seed in range(50)]


@pytest.fixture(scope="module", params=KINDS)
def source(request, tmp_path_factory):
    return find_model(str(make_causal(tmp_path_factory.mktemp(request.param), request.param)))


@pytest.fixture(scope="module")
def expected(source):
    model = load_causal(source, device="cpu")
    texts = []
    for prompt in PROMPTS:
        ids = torch.tensor([source.tokenizer(prompt)["input_ids"]])
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
        texts.append(made[0, ids.shape[1] :].tolist())
    return texts


@pytest.mark.parametrize("size", [1, 8])
def test_50_texts_are_those_of_transformers_with_and_without_a_cache(source, expected, size):
    settings = Settings(max_new_tokens=NEW, cache="none,dynamic,static", batch_size=size, rounds=1)
    record = run(open_torch(source, device="cpu"), PROMPTS, settings)
    assert len(set(map(tuple, expected))) > 25
    assert [text["tokens"] for text in record["texts"]] == expected
    assert [ratio["tokens_equal"] for ratio in record["ratios"]] == [True, True]
    assert {text["ended"] for text in record["texts"]} <= {"eos", "length"}
    for text in record["texts"]:
        assert (text["ended"] == "eos") == (text["tokens"][-1] == 3)
        assert text["text"] == source.tokenizer.decode(text["tokens"], skip_special_tokens=True)
    for one in record["runs"]:
        assert one["generated_tokens"] == sum(map(len, expected))
        assert (one["kv_cache_bytes_per_token"] is None) == (one["cache"] == "none")


def test_bytes_are_those_of_the_weights_that_a_step_reads_and_of_keys_and_values(source):
    model = load_causal(source, device="cpu")
    names = ("wte", "wpe", "embed_tokens")
    tables = [weight for name, weight in model.named_parameters() if any(part in name for part in names)]
    head = model.lm_head.weight  # tied in GPT-2, of its own in Llama
    every = {id(weight): weight for weight in model.parameters()}
    read = sum(weight.nbytes for weight in every.values()) - sum(weight.nbytes for weight in tables)
    read += head.nbytes if any(head is table for table in tables) else 0
    assert weight_bytes(model) == read
    prompt = "a good story"
    settings = Settings(max_new_tokens=4, rounds=1)
    record = run(open_torch(source, device="cpu"), [prompt], settings, bandwidth=lambda device: 5e9)
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    kept = 2 * config.num_hidden_layers * heads * config.hidden_size // config.num_attention_heads * 4
    (one,) = record["runs"]
    assert one["kv_cache_bytes_per_token"] == kept
    steps = one["decode"]["steps"]
    assert steps == len(record["texts"][0]["tokens"]) - 1
    length = record["texts"][0]["prompt_tokens"]
    moved = read + round(kept * np.mean([length + i for i in range(1, steps + 1)]))
    assert one["decode"]["bytes_per_step"] == moved
    assert record["memory_gigabytes_per_s"] == 5
    assert one["decode"]["bandwidth_share"] == pytest.approx(moved / (one["decode"]["step_ms_p50"] / 1e3) / 5e9)


def test_energy_of_prompt_and_generated_tokens(source):
    calls = []

    def measure(work):
        made = work()
        calls.append(sum(one.count for one in made))
        return 10.0 if len(calls) == 1 else 40.0, None

    record = run(
        open_torch(source, device="cpu"),
        PROMPTS[:3],
        Settings(max_new_tokens=5, rounds=1, batch_size=2),
        energy=measure,
    )
    (one,) = record["runs"]
    generated = one["generated_tokens"]
    assert calls == [3, generated]
    assert one["prefill"]["j_per_token"] == 10 / sum(text["prompt_tokens"] for text in record["texts"])
    assert one["decode"]["j_per_token"] == 30 / (generated - 3)
    assert one["per_generated_token_j"] == 40 / generated


def test_energy_that_cannot_be_measured_has_a_reason(source):
    settings = Settings(max_new_tokens=2, rounds=1)
    record = run(open_torch(source, device="cpu"), PROMPTS[:1], settings, energy=lambda work: (None, "rapl_absent"))
    assert record["runs"][0]["per_generated_token_j"] is None
    assert record["runs"][0]["energy_reason"] == "rapl_absent"


def test_the_ratio_that_counts_predict():
    """128 positions at 1 ms each and 47 steps of 20 ms: the sum of 128 ... 175 ms over 128 + 940 ms."""
    one = Generated([[5] * 48], [False], first_s=0.128, steps_s=[0.020] * 47, cache_bytes=1)
    batch = PromptBatch(np.ones((1, 128), np.int64), np.ones((1, 128), np.int64))
    assert predict_ratio(Timed([[one]]), [batch]) == pytest.approx(sum(range(128, 176)) / (128 + 47 * 20))
