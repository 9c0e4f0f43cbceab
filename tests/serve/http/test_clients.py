"""Requests of OpenAI's and text-embeddings-inference's clients: what is read, what is refused, and the responses."""

import base64
import json

import numpy as np
import orjson
import pytest

from toolchain.data.tasks import Task
from toolchain.heads import find_head
from toolchain.serve.counters import Times
from toolchain.serve.http.clients import RerankRequest, decode_embeddings, decode_rerank, embeddings, ranked
from toolchain.serve.protocol import RefusedError
from toolchain.serve.service import Ran

PAIRS = Task(name="t", text_columns=("a", "b"), label_column="l")
VECTORS = np.array([[0.6, -0.8], [1 / 3, 1e-8]], np.float32)


def asked(**keys):
    return decode_embeddings(json.dumps(keys).encode(), width=2, max_rows=3)


def test_one_text_and_a_list_are_read():
    assert asked(input="a").texts == ["a"]
    assert asked(input=["a", "b"], model="m", dimensions=2, user="me").texts == ["a", "b"]
    assert asked(input="a").model is None


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "'input' is missing"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a"] * 4}, "4"),
        ({"input": "a", "dimensions": 1}, "'dimensions' must be 2 or left out"),
        ({"input": "a", "encoding_format": "hex"}, "float or base64"),
        ({"input": "a", "model": 1}, "'model' must be a text"),
        ({"input": "a", "inputs": "b"}, "unknown key 'inputs'"),
    ],
)
def test_another_request_for_vectors_is_refused(keys, why):
    with pytest.raises(RefusedError, match=why):
        asked(**keys)


def test_vectors_come_as_numbers_or_as_bytes_of_float32():
    ran = Ran(VECTORS, np.array([False, True]), 7, Times())
    found = orjson.loads(orjson.dumps(embeddings(ran, asked(input=["a", "b"]), "m")))
    assert (found["object"], found["model"]) == ("list", "m")
    assert found["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [one["index"] for one in found["data"]] == [0, 1]
    assert np.float32([one["embedding"] for one in found["data"]]).tolist() == VECTORS.tolist()
    assert [one.get("truncated") for one in found["data"]] == [None, True]
    packed = orjson.loads(orjson.dumps(embeddings(ran, asked(input=["a", "b"], encoding_format="base64"), "m")))
    for one, vector in zip(packed["data"], VECTORS, strict=True):
        assert np.frombuffer(base64.b64decode(one["embedding"]), "<f4").tolist() == vector.tolist()


def rank(**keys):
    return decode_rerank(json.dumps(keys).encode(), 3, 100)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"texts": ["a"]}, "'query' is missing"),
        ({"query": ["q"], "texts": ["a"]}, "'query' must be a text"),
        ({"query": "q", "texts": "a"}, "'texts' must be a list"),
        ({"query": "q", "texts": []}, "texts"),
        ({"query": "q", "texts": ["a"] * 4}, "4"),
        ({"query": "q", "texts": ["a"], "raw_scores": 1}, "true or false"),
        ({"query": "q", "texts": ["a"], "truncation_direction": "left"}, "must be right"),
    ],
)
def test_another_request_to_rank_is_refused(keys, why):
    with pytest.raises(RefusedError, match=why):
        rank(**keys)


def test_texts_come_by_falling_score_and_equal_ones_in_their_order():
    logits = np.array([[0.5], [2.0], [0.5], [-1.0]], np.float32)
    ran, head = Ran(logits, np.zeros(4, bool), 9, Times()), find_head(PAIRS, ("score",), possible=("rerank",))
    plain = ranked(ran, RerankRequest("q", ["a", "b", "c", "d"], False, False), head)
    assert [one["index"] for one in plain] == [1, 0, 2, 3]
    assert [one["score"] for one in plain] == pytest.approx([0.8808, 0.6225, 0.6225, 0.2689], abs=1e-4)
    raw = ranked(ran, RerankRequest("q", ["a", "b", "c", "d"], True, True), head)
    assert [(one["score"], one["text"]) for one in raw] == [(2.0, "b"), (0.5, "a"), (0.5, "c"), (-1.0, "d")]
    assert rank(query="q", texts=["a", "b"], raw_scores=True) == RerankRequest("q", ["a", "b"], True, False)
