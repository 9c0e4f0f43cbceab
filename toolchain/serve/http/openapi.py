"""The OpenAPI document of the HTTP API.

Its fixed part is openapi.json, beside this file. This module adds what depends on the service: the limits, the
examples, the paths of the model's head, and the schemas of responses. The schemas are made from the records that the
service sends (toolchain/records/).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from toolchain import __version__
from toolchain.base.tensors import TEXT_INPUTS
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.records import serving
from toolchain.serve.datatypes import NUMPY

if TYPE_CHECKING:
    from toolchain.serve.limits import Limits

# An OpenAPI document or a part of it: JSON whose form the OpenAPI specification defines.
OpenApi = dict[str, Any]

_ERRORS = {
    400: "The request is invalid; the message says why.",
    401: "The request lacks the token of the service.",
    403: "The request comes from a page of another web site, and the service has no token.",
    404: "Unknown path or model.",
    405: "The path does not support this method.",
    413: "The body is too large.",
    501: "The content encoding is neither gzip nor deflate.",
    503: "The service is busy, not ready or shutting down. Try again after the number of seconds in Retry-After.",
}

# Schema -> the type of the response that it describes. Code generators use the names of schemas as class names, so they
# are public.
_RESPONSES = {
    "Label": serving.Response,
    "Info": serving.ServiceInfo,
    "Vectors": serving.EmbeddingsResponse,
    "Ranks": list[serving.RankedText],
    "EmbeddingsError": serving.EmbeddingsError,
    "RerankError": serving.RerankError,
    "Model": serving.ModelMetadata,
    "Server": serving.ServerMetadata,
    "Index": list[serving.ModelState],
}

# Key of a record -> the part of its schema that does not follow from its type.
_MORE: dict[str, OpenApi] = {
    **{key: {"minimum": 0} for key in ("index", "start", "end", "prompt_tokens", "total_tokens")},
    "examples": {"minItems": 1},
    "truncated": {"description": "True if the text is longer than the model reads."},
    "stage": {"description": "The stage of a cascade that answered the row."},
}

# Python type -> JSON type. A float can be null, because a number that is not finite is written as null.
_TYPES = {str: "string", int: "integer", float: ["number", "null"], bool: "boolean", type(None): "null"}

SENTIMENT: serving.Response = {"label": "positive", "score": 0.98, "scores": {"negative": 0.02, "positive": 0.98}}


@dataclass(frozen=True)
class Shown:
    """What the pages and the OpenAPI document show of a model.

    That is its name, an example response, example rows, and the paths that its head adds.
    """

    model: str = "sst2"
    response: serving.Response = field(default_factory=lambda: SENTIMENT)
    rows: Sequence[Text] = (("a gripping film",), ("two hours that I will not get back",))
    routes: Sequence[str] = ()

    @property
    def bodies(self) -> list[dict[str, str]]:
        """Bodies of requests to `POST /classify`, one for each example row."""
        return [dict(zip(("text", "pair"), row, strict=False)) for row in self.rows]

    def without_rows(self) -> "Shown":
        """Return a copy with built-in sentences in place of the rows of the model's own data."""
        return replace(self, rows=probe_texts(len(self.rows[0]))[: len(self.rows)])

    @property
    def output(self) -> OpenApi:
        """The example response as an output tensor of the inference protocol.

        Several labels are one text, a JSON list. A number is written as text.
        """
        found: OpenApi = {**self.response}
        if "embedding" in found:
            vector = found["embedding"]
            return {"name": "EMBEDDING", "datatype": "FP32", "shape": [1, len(vector)], "data": vector}
        name, value = "LABEL", found.get("label", found.get("labels"))
        if "entities" in found:
            name, value = "ENTITIES", found["entities"]
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value or str(found["score"])
        return {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [text]}


# A built-in example for the OpenAPI document of a service that requires a token. The document itself needs no token, so
# it must show nothing about the served model.
ANY_MODEL = Shown()


def document(limits: "Limits", shown: Shown = ANY_MODEL) -> OpenApi:
    """Return the OpenAPI document of a service with these limits. Its examples and paths are those in `shown`."""
    found: OpenApi = json.loads(Path(__file__).with_name("openapi.json").read_text(encoding="utf-8"))
    found["info"]["version"] = __version__
    schemas = found["components"]["schemas"]
    schemas |= {name: schema(kind) for name, kind in _RESPONSES.items()} | {"Datatype": {"enum": list(NUMPY)}}
    schemas["Text"]["maxLength"], schemas["TextList"]["maxItems"] = limits.max_characters, limits.max_queue
    for path in ("/v1/embeddings", "/rerank"):
        if path not in shown.routes:
            del found["paths"][path]
    for path, methods in found["paths"].items():
        error = {"/v1/embeddings": "EmbeddingsError", "/rerank": "RerankError"}.get(path, "Error")
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
        errors = {str(code): {"description": text, "content": content} for code, text in _ERRORS.items()}
        for operation in methods.values():
            operation["responses"] |= errors
    for path, (requests, response) in _examples(shown).items():
        if path in found["paths"]:
            operation = found["paths"][path]["post"]
            for part, examples in ((operation["requestBody"], requests), (operation["responses"]["200"], response)):
                shown_there = {name: {"value": value} for name, value in examples.items()}
                part["content"]["application/json"]["examples"] = shown_there
    text = json.dumps(found)
    for name in [name for name in schemas if f'"#/components/schemas/{name}"' not in text]:  # of paths left out
        del schemas[name]
    return found


def schema(kind: Any) -> OpenApi:
    """Return the JSON schema of a type hint of a record: a TypedDict, list, dict, Literal, union or plain type."""
    of = get_args(kind)
    if is_typeddict(kind):
        keys = get_type_hints(kind)
        required = [key for key in keys if key in kind.__required_keys__]
        properties = {key: schema(value) | _MORE.get(key, {}) for key, value in keys.items()}
        return {"type": "object", "required": required, "properties": properties}
    if get_origin(kind) is list:
        return {"type": "array", "items": schema(of[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": schema(of[1])}
    if get_origin(kind) is Literal:
        return {"enum": list(of)}
    return {"anyOf": [*map(schema, of)]} if isinstance(kind, UnionType) else {"type": _TYPES[kind]}


def _examples(shown: Shown) -> dict[str, tuple[OpenApi, OpenApi]]:
    """Return the examples of each path: a dict of request bodies by name, and a dict of responses by name."""
    columns = {key: [body[key] for body in shown.bodies[:2]] for key in shown.bodies[0]}
    vector = {"object": "embedding", "index": 0, "embedding": {**shown.response}.get("embedding")}
    usage = {"prompt_tokens": 11, "total_tokens": 11}
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        for name, text in zip(TEXT_INPUTS, shown.rows[0], strict=False)
    ]
    return {
        "/classify": ({"one": shown.bodies[0], "several": columns}, {"one": shown.response}),
        "/v1/embeddings": (
            {"some": {"input": [row[0] for row in shown.rows], "encoding_format": "float"}},
            {"some": {"object": "list", "data": [vector], "model": shown.model, "usage": usage}},
        ),
        "/rerank": (
            {"some": {"query": shown.rows[0][0], "texts": [row[-1] for row in shown.rows]}},
            {"some": [{"index": 0, "score": 0.98}, {"index": 1, "score": 0.02}]},
        ),
        "/v2/models/{model}/infer": (
            {"text": {"inputs": inputs, "outputs": [{"name": shown.output["name"]}]}},
            {"text": {"model_name": shown.model, "model_version": "1", "outputs": [shown.output]}},
        ),
    }
