from functools import partial

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.probes import probe_texts
from toolchain.errors import GateError
from toolchain.runtimes import parity

compare = partial(parity.compare, decide=head_of("no", "yes").decide)
TOKENS = Tokens(
    {"input_ids": [[5, 6], [7, 8, 9]], "attention_mask": [[1, 1], [1, 1, 1]]},
    dict.fromkeys(("input_ids", "attention_mask"), 0),
)


def mean_logits(batch):
    total = (batch["input_ids"] * batch["attention_mask"]).sum(axis=1) / np.maximum(
        1, batch["attention_mask"].sum(axis=1)
    )
    return np.stack([total, -total], axis=1).astype(np.float32)


def test_equal_runtimes_have_no_difference():
    found = compare(mean_logits, mean_logits, TOKENS)
    assert (found.max_abs_logit_difference, found.label_agreement, found.finite) == (0, 1, True)


def test_a_runtime_that_reads_padding_is_detected():
    def careless(batch):
        return mean_logits({**batch, "attention_mask": np.ones_like(batch["attention_mask"])})

    found = compare(mean_logits, careless, TOKENS)
    with pytest.raises(
        GateError,
        match=r"here: logits differ from PyTorch by .* more than 0\.0001\. Run the checkpoint in",
    ):
        parity.check(found, where="here", atol=1e-4)


def test_nan_for_a_row_of_padding_is_detected():
    def fragile(batch):
        with np.errstate(invalid="ignore"):
            real = batch["attention_mask"].any(axis=1, keepdims=True)
            return np.where(real, mean_logits(batch), np.float32(np.nan))

    found = compare(mean_logits, fragile, TOKENS)
    assert not found.finite
    with pytest.raises(GateError, match="NaN or infinity"):
        parity.check(found, where="here", atol=1)


def test_probes_are_pairs_for_a_task_of_pairs():
    assert {len(text) for text in probe_texts(2)} == {2}
    assert len({len(text[0].split()) for text in probe_texts(1)}) > 5


def test_a_reference_of_nan_does_not_pass():
    found = compare(lambda batch: np.full((len(batch["input_ids"]), 2), np.nan), mean_logits, TOKENS)
    assert not found.finite


def test_a_relative_check_grows_with_the_logits():
    found = compare(lambda batch: mean_logits(batch) + 1, mean_logits, TOKENS)
    assert found.rms_logit_difference == pytest.approx(1)


def test_no_batch_is_longer_than_the_model_has_positions_for():
    lengths = [batch["input_ids"].shape[1] for batch in parity.probe_batches(TOKENS, longest=4)]
    assert max(lengths) == 4


def test_a_row_of_padding_may_be_undefined_only_where_the_reference_is_too():
    def undefined(batch):
        found = mean_logits(batch)
        found[~batch["attention_mask"].any(axis=1)] = np.nan
        return found

    assert compare(undefined, undefined, TOKENS).finite
    assert not compare(mean_logits, undefined, TOKENS).finite
