"""Two paths that are compatible with the clients of other servers: their requests and responses.

`POST /v1/embeddings` has the form of OpenAI's API, `POST /rerank` that of text-embeddings-inference.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.heads.contract import Head
from toolchain.records.serving import (
    EmbeddedText,
    EmbeddingsError,
    EmbeddingsResponse,
    RankedText,
    RerankError,
    TokenUsage,
)
from toolchain.serve.http.codec import by_row, load, read_texts, refuse_repeated
from toolchain.serve.protocol import invalid, too_large
from toolchain.serve.service import Ran

# Keys of a request of POST /v1/embeddings (OpenAI's API reference, "Create embeddings").
EMBEDDINGS_KEYS = ("input", "model", "encoding_format", "dimensions", "user")

# Keys of a request of POST /rerank (text-embeddings-inference's OpenAPI document, `RerankRequest`).
RERANK_KEYS = ("query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction")


@dataclass(frozen=True)
class EmbeddingsRequest:
    """A request of POST /v1/embeddings: its texts, a model's name, and whether it asks for vectors in base64.

    `model` is None if the request names no model.
    """

    texts: list[str]
    model: str | None
    base64: bool


@dataclass(frozen=True)
class RerankRequest:
    """A request of POST /rerank: a query, and the texts to rank.

    With `raw_scores`, the response has logits as scores. With `return_text`, it repeats the texts.
    """

    query: str
    texts: list[str]
    raw_scores: bool
    return_text: bool


def decode_embeddings(body: bytes, *, width: int | None, max_rows: int) -> EmbeddingsRequest:
    """Return the request in a body of POST /v1/embeddings.

    `width` is the size of the model's vectors, and the only value that the key `dimensions` may have. `max_rows` is the
    largest number of texts.

    Raises:
        RefusedError: the body is malformed, has too many texts, or asks for something that the model does not support.
    """
    record = _record(body, EMBEDDINGS_KEYS, "input")
    form = record.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise invalid("'encoding_format' must be float or base64")
    if record.get("dimensions") not in (None, width):
        raise invalid(f"'dimensions' must be {width} or left out: this model has no shorter vectors")
    model = record.get("model")
    if model is not None and type(model) is not str:
        raise invalid("'model' must be a text")
    return EmbeddingsRequest(read_texts(record, "input", max_rows), model, form == "base64")


def embeddings(ran: Ran, request: EmbeddingsRequest, model: str) -> EmbeddingsResponse:
    """Return the response to a request of POST /v1/embeddings.

    The entry of a text has the key `truncated` if the text was cut.
    """

    def row(index: int) -> EmbeddedText:
        vector = ran.logits[index]
        # OpenAI's client decodes little-endian float32.
        packed = base64.b64encode(vector.astype("<f4").tobytes()).decode() if request.base64 else None
        found: EmbeddedText = {"object": "embedding", "index": index, "embedding": packed or vector.tolist()}
        return {**found, "truncated": True} if ran.cut[index] else found

    usage: TokenUsage = {"prompt_tokens": ran.tokens, "total_tokens": ran.tokens}
    data = by_row(map(row, range(len(ran.logits))))
    return {"object": "list", "data": data, "model": model, "usage": usage}


def decode_rerank(body: bytes, max_rows: int, max_characters: int) -> RerankRequest:
    """Return the request in a body of POST /rerank.

    Raises:
        RefusedError: the body is malformed, or asks for something that the model does not support; or it has more than
            `max_rows` texts, or more than `max_characters` characters, where the query counts once for each text
            (TOO_LARGE).
    """
    record = _record(body, RERANK_KEYS, "query", "texts")
    if type(record["query"]) is not str:
        raise invalid("'query' must be a text")
    if type(record["texts"]) is not list:
        raise invalid("'texts' must be a list of texts")
    flags = {key: record.get(key) or False for key in ("raw_scores", "return_text", "truncate")}
    if not all(type(flag) is bool for flag in flags.values()):
        raise invalid("'raw_scores', 'return_text' and 'truncate' must be true or false")
    if str(record.get("truncation_direction") or "right").lower() != "right":
        raise invalid("'truncation_direction' must be right or left out: texts are cut at their ends")
    texts = read_texts(record, "texts", max_rows)
    characters = len(record["query"]) * len(texts) + sum(map(len, texts))
    if characters > max_characters:
        raise too_large(
            f"the request has {characters} characters, counting the query once for each text, but at most "
            f"{max_characters} are allowed: send several requests"
        )
    return RerankRequest(record["query"], texts, flags["raw_scores"], flags["return_text"])


def ranked(ran: Ran, request: RerankRequest, head: Head) -> list[RankedText]:
    """Return the response to a request of POST /rerank: the texts in descending order of score.

    Texts with equal scores keep the order of the request.
    """
    values = (ran.logits if request.raw_scores else head.scores(ran.logits))[:, 0]
    found: list[RankedText] = []
    for index in np.argsort(-ran.logits[:, 0], kind="stable").tolist():
        one: RankedText = {"index": index, "score": float(values[index])}
        if request.return_text:
            one["text"] = request.texts[index]
        if ran.cut[index]:
            one["truncated"] = True
        found.append(one)
    return found


def _embeddings_error(status: int, message: str) -> EmbeddingsError:
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(status)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _rerank_error(status: int, message: str) -> RerankError:
    return {"error": message, "error_type": {500: "backend", 503: "overloaded"}.get(status, "validation")}


# Path -> the function that returns the body of an error response, given its status and its message. The body for other
# paths is {"error": message}.
ERRORS: dict[str, Callable[[int, str], Mapping[str, Any]]] = {
    "/v1/embeddings": _embeddings_error,
    "/rerank": _rerank_error,
}


def _record(body: bytes, known: tuple[str, ...], *required: str) -> dict[str, Any]:  # Any: any JSON value
    """Return the JSON object in a body.

    Refuse a key that is not in `known`, and an object that lacks one of `required`.
    """
    record = load(body)
    refuse_repeated(body, [record])
    if unknown := [key for key in record if key not in known]:
        raise invalid(f"unknown key '{unknown[0]:.64}': the known keys are {', '.join(known)}")
    if absent := [key for key in required if key not in record]:
        raise invalid(f"'{absent[0]}' is missing: give {' and '.join(required)}")
    return record
