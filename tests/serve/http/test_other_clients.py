"""Refusals over the socket in the form that OpenAI's and text-embeddings-inference's clients read."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from toolchain.data.tasks import Task
from toolchain.heads import find_head
from toolchain.serve.limits import Limits

PAIRS = Task(name="t", text_columns=("a", "b"), label_column="l")
HEADS = {
    "/v1/embeddings": find_head(PAIRS, (), possible=("embedding",), width=3),
    "/rerank": find_head(PAIRS, ("score",), possible=("rerank",)),
}
LIMITS = Limits(max_characters=100, max_queue=64, max_body_bytes=4000)


@pytest.fixture
def address(fake, request):
    """The URL of a server of the model that has a path."""
    with fake.running(fake.FakeService(head=HEADS[request.param], limits=LIMITS)) as at:
        yield f"http://{at}{request.param}"


def refused(address, body, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(address, data, headers or {}), timeout=60)
    with error.value:
        return error.value.code, json.load(error.value)


WRONG = {
    "/v1/embeddings": [
        (404, {"input": "a", "model": "another"}),
        (413, {"input": "a" * 101}),
        (413, {"input": ["a"] * 65}),
        (413, {"input": "a" * 5000}),
        (400, {"input": [[1, 2]]}),
        (400, b"{"),
    ],
    "/rerank": [
        (413, {"query": "a", "texts": ["a" * 101]}),
        (413, {"query": "a", "texts": ["a"] * 65}),
        (413, {"query": "a" * 90, "texts": ["a"] * 64}),  # 5,824 characters from a smaller body
        (400, {"query": "a", "texts": "b"}),
        (400, {"texts": ["b"]}),
    ],
}


@pytest.mark.parametrize("address", ["/v1/embeddings"], indirect=True)
def test_openais_form_has_message_type_and_code(address):
    for status, body in WRONG["/v1/embeddings"]:
        found, answer = refused(address, body)
        assert (found, set(answer), answer["error"]["type"]) == (status, {"error"}, "invalid_request_error")
        assert answer["error"]["message"]
        assert answer["error"]["code"] == ("model_not_found" if status == 404 else None)


@pytest.mark.parametrize("address", ["/rerank"], indirect=True)
def test_the_other_form_has_error_and_its_type(address):
    for status, body in WRONG["/rerank"]:
        found, answer = refused(address, body)
        assert (found, answer["error_type"]) == (status, "validation")
        assert isinstance(answer["error"], str)


@pytest.mark.parametrize("address", ["/v1/embeddings"], indirect=True)
@pytest.mark.slow
def test_openais_own_client_gets_vectors_and_raises_its_errors(address):
    openai = pytest.importorskip("openai", reason="its client is not installed")
    with openai.OpenAI(base_url=address.removesuffix("/embeddings"), api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="sentiment", input=["ab", "c"])  # asks for base64
        np.testing.assert_array_equal([one.embedding for one in found.data], [[2, 2, 2], [1, 1, 1]])
        plain = client.embeddings.create(model="sentiment", input="ab", encoding_format="float")
        assert plain.data[0].embedding == [2, 2, 2]
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="another", input="a")
        assert (missing.value.code, missing.value.type) == ("model_not_found", "invalid_request_error")
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="sentiment", input=[[1, 2]])
        with pytest.raises(openai.APIStatusError) as large:
            client.embeddings.create(model="sentiment", input="a" * 101)
        assert large.value.status_code == 413
