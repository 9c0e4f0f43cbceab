"""The evaluator gives each row its own logits, whatever the batches."""

from collections import Counter

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError
from toolchain.evaluation import measure as evaluation
from toolchain.heads.predictions import Predictions
from toolchain.runtimes.batched import run

CLASSES, NUMBER = head_of("no", "yes"), head_of("value")


def encode(texts):
    ids = [[len(word) for word in text[0].split()] for text in texts]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    return Tokens(columns, {"input_ids": 0, "attention_mask": 0})


def infer(batch):
    total = (batch["input_ids"] * batch["attention_mask"]).sum(axis=1)
    return np.stack([total, -total], axis=1).astype(np.float32)


def texts_of(count):
    generator = np.random.default_rng(count)
    return [(" ".join("x" * generator.integers(1, 9) for _ in range(generator.integers(1, 30))),) for _ in range(count)]


@pytest.mark.parametrize("max_slots", [1, 64, 100_000])
def test_logits_come_back_in_the_order_of_rows(max_slots):
    texts = texts_of(50)
    done = run(infer, encode(texts), max_slots=max_slots)
    expected = [sum(len(word) for word in text[0].split()) for text in texts]
    assert done.logits[:, 0].tolist() == expected
    assert done.slots >= encode(texts).lengths.sum()


def test_measure_gives_the_keys_of_a_result():
    logits, speed = evaluation.measure(infer, encode, texts_of(20), seed=0, log=lambda line: None)
    assert len(logits) == 20
    assert {"latency_ms", "throughput_per_s", "runtime_throughput_per_s", "tokens", "peak_memory_mb"} <= set(speed)
    assert speed["tokens"]["real"] == encode(texts_of(20)).lengths.sum()
    assert 0 < speed["tokens"]["padding_efficiency"] <= 1
    assert dict(speed["tokens"]["lengths"]) == Counter(encode(texts_of(20)).lengths.tolist())
    assert speed["tokens"]["real_pairs"] == (encode(texts_of(20)).lengths ** 2).sum()
    assert speed["tokens"]["slot_pairs"] > speed["tokens"]["real_pairs"]


@pytest.mark.parametrize(("max_slots", "batches", "pairs"), [(6, 3, 5 * 5 + 3 * 3 * 2 + 1), (100, 1, 4 * 5 * 5)])
def test_a_run_counts_its_batches_and_the_pairs_in_them(max_slots, batches, pairs):
    texts = [(" ".join("x" * length),) for length in (1, 3, 5, 3)]
    done = run(infer, encode(texts), max_slots=max_slots)
    assert (done.batches, done.pairs) == (batches, pairs)


def test_a_logit_that_is_no_number_is_refused():
    def broken(batch):
        return np.full((len(batch["input_ids"]), 2), np.nan, np.float32)

    with pytest.raises(InputError, match="row 1: the model computes"):
        evaluation.measure(broken, encode, texts_of(5), seed=0, log=lambda line: None)


def test_score_is_the_metric_within_its_interval():
    references = np.arange(200) % 2
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(200) < 180, references, 1 - references)]
    scored = evaluation.score(CLASSES.predict(references, logits), CLASSES, seed=0)
    low, high = scored["metrics_ci95"]["accuracy"]
    assert scored["metrics"]["accuracy"] == 0.9
    assert low < 0.9 < high
    # A binomial of 200 rows at 0.9 has a standard deviation of 0.0212.
    assert high - low == pytest.approx(2 * 1.96 * 0.0212, rel=0.2)


def test_agreement_counts_rows_and_regression_has_none():
    logits = np.array([[1, 0], [1, 0]], np.float32), np.array([[1, 0], [0, 1.5]], np.float32)
    one, other = (CLASSES.predict(np.zeros(2, int), each) for each in logits)
    found = evaluation.agreement(one, other, CLASSES, name="torch-fp32")
    assert (found["label_agreement"], found["max_abs_logit_difference"]) == (0.5, 1.5)
    numbers = [NUMBER.predict(np.zeros(2), each[:, :1]) for each in logits]
    assert evaluation.agreement(*numbers, NUMBER, name="torch-fp32")["label_agreement"] is None


def test_the_whole_set_is_tokenised_once():
    asked = []

    def counting(texts):
        asked.append(len(texts))
        return encode(texts)

    texts = texts_of(evaluation.TRIAL_ROWS + 50)
    evaluation.measure(infer, counting, texts, seed=0, log=lambda line: None)
    assert [count for count in asked if count > 1] == [evaluation.TRIAL_ROWS, len(texts)]


def test_rows_that_were_cut_are_counted_and_the_most_frequent_label_is_known():
    def find_cut(texts, lengths):
        assert lengths.tolist() == [len(text[0].split()) for text in texts]
        return lengths > 20

    texts = texts_of(20)
    _, speed = evaluation.measure(infer, encode, texts, seed=0, log=lambda line: None, find_cut=find_cut)
    assert speed["tokens"]["truncated_rows"] == sum(len(text[0].split()) > 20 for text in texts)
    found = Predictions(np.array([0, 2, 2, 1]), np.array([0, 2, 1, 1]), np.zeros((4, 3), np.float32))
    assert evaluation.most_frequent(found) == {"share": 0.5, "accuracy": 0.75}
    assert evaluation.most_frequent(NUMBER.predict(np.zeros(4), found.logits)) is None
