"""The description of the HTTP API as an OpenAPI 3.1 document."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolchain import __version__
from toolchain.base.tensors import TEXT_INPUTS
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.records.serving import Response
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
    503: "The service is busy, not ready or shutting down. Try again after the seconds in Retry-After.",
}
SENTIMENT: Response = {"label": "positive", "score": 0.98, "scores": {"negative": 0.02, "positive": 0.98}}
_NAME = {"type": "string", "minLength": 1}
_NUMBER = {"type": ["number", "null"]}


@dataclass(frozen=True)
class Shown:
    """What is shown of a model: its name, its response to a row, rows that it takes, and the paths of its head."""

    model: str = "sst2"
    response: Response = field(default_factory=lambda: SENTIMENT)
    rows: Sequence[Text] = (("a gripping film",), ("two hours that I will not get back",))
    routes: Sequence[str] = ()

    @property
    def bodies(self) -> list[dict[str, str]]:
        """Requests of `POST /classify`, one for each row."""
        return [dict(zip(("text", "pair"), row, strict=False)) for row in self.rows]

    def without_rows(self) -> "Shown":
        """Return the same with built-in sentences in the place of the model's own rows."""
        return replace(self, rows=probe_texts(len(self.rows[0]))[: len(self.rows)])

    @property
    def output(self) -> OpenApi:
        """The tensor of the example's response: several labels are a JSON list, and a number is written as text."""
        found: OpenApi = {**self.response}
        if "embedding" in found:
            vector = found["embedding"]
            return {"name": "EMBEDDING", "datatype": "FP32", "shape": [1, len(vector)], "data": vector}
        if "entities" in found:
            entities = json.dumps(found["entities"], ensure_ascii=False)
            return {"name": "ENTITIES", "datatype": "BYTES", "shape": [1, 1], "data": [entities]}
        if "labels" in found:
            label = json.dumps(found["labels"], ensure_ascii=False)
        else:
            label = str(found["score"] if found["label"] is None else found["label"])
        return {"name": "LABEL", "datatype": "BYTES", "shape": [1, 1], "data": [label]}


# A service that asks for a token shows this to everybody, and nothing about its model.
ANY_MODEL = Shown()


def document(limits: "Limits", shown: Shown = ANY_MODEL) -> OpenApi:
    """Return the OpenAPI document of a service with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "toolchain service",
            "version": __version__,
            "description": "One model of texts, as plain JSON and in the Open Inference Protocol that Triton uses.",
        },
        "paths": {
            "/classify": {"post": _classify(shown)},
            **{path: {"post": _OF_HEADS[path](shown)} for path in shown.routes},
            "/info": {"get": _get("Describe what is served, with rows to try it", _schema("Info"))},
            "/v2/models/{model}/infer": {"post": _infer(shown)},
            "/v2/models/{model}": {
                "get": _get("Describe the inputs and outputs of the model", _schema("Model"), of_model=True)
            },
            "/v2/models/{model}/ready": {"get": _get("Check whether the model is ready", None, of_model=True)},
            "/v2": {"get": _get("Describe the service and its extensions", _schema("Server"))},
            "/v2/repository/index": {"post": _get("List the model and its state", _schema("Index"))},
            "/v2/health/live": {"get": _get("Check whether the process works", None, open_to_all=True)},
            "/v2/health/ready": {"get": _get("Check whether requests should be sent here", None, open_to_all=True)},
            "/metrics": {"get": _get("Return counters in the text format of Prometheus", None)},
        },
        "components": {"schemas": _schemas(limits), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _classify(shown: Shown) -> OpenApi:
    texts = dict(zip(("text", "pair"), zip(*shown.rows[:2], strict=True), strict=False))
    examples = {
        "one": shown.bodies[0],
        "several": {key: list(column) for key, column in texts.items()},
    }
    response = {"anyOf": [_schema("Label"), {"type": "array", "items": _schema("Label")}]}
    return {
        "summary": "Classify one text or several",
        "description": "The response to a list is a list. A model for pairs takes the second text as pair. The names "
        "inputs and text_pair of Hugging Face's servers are accepted too.",
        "requestBody": _json(_schema("Texts"), examples),
        "responses": {
            "200": {
                "description": "The label and its score; the number of a regression is the score, and its label null. "
                "A model that gives several labels responds with a list of them, and the scores of all; a model of "
                "embeddings with a vector; a model of tags with entities and their places in the text.",
                **_json(response, {"one": shown.response}),
            },
            **_errors(),
        },
        "security": [{"token": []}, {}],
    }


def _embeddings(shown: Shown) -> OpenApi:
    request = {"input": [row[0] for row in shown.rows], "encoding_format": "float"}
    usage = {"prompt_tokens": 11, "total_tokens": 11}
    data = [{"object": "embedding", "index": 0, "embedding": {**shown.response}.get("embedding")}]
    response = {"object": "list", "data": data, "model": shown.model, "usage": usage}
    return _of_others(
        "Return the vectors of texts, as OpenAI's clients ask for them", "Embeddings", request, "Vectors", response
    )


def _rerank(shown: Shown) -> OpenApi:
    request = {"query": shown.rows[0][0], "texts": [row[-1] for row in shown.rows]}
    response = [{"index": 0, "score": 0.98}, {"index": 1, "score": 0.02}]
    return _of_others(
        "Rank texts for a query, as text-embeddings-inference's clients ask for it",
        "Rerank",
        request,
        "Ranks",
        response,
    )


def _of_others(summary: str, takes: str, request: OpenApi, gives: str, response: Any) -> OpenApi:
    """Return an operation in the form of another server."""
    return {
        "summary": summary,
        "requestBody": _json(_schema(takes), {"some": request}),
        "responses": {
            "200": {"description": "Success.", **_json(_schema(gives), {"some": response})},
            **_errors(f"{takes}Error"),
        },
        "security": [{"token": []}, {}],
    }


_OF_HEADS = {"/v1/embeddings": _embeddings, "/rerank": _rerank}


def _infer(shown: Shown) -> OpenApi:
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        for name, text in zip(TEXT_INPUTS, shown.rows[0], strict=False)
    ]
    response = {
        "model_name": shown.model,
        "model_version": "1",
        "outputs": [shown.output],
    }
    request = {"text": {"inputs": inputs, "outputs": [{"name": shown.output["name"]}]}}
    success = {"description": "The outputs.", **_json(_schema("Answer"), {"text": response})}
    return {
        "summary": "Run an inference request of the Open Inference Protocol",
        "description": "Tensors may also follow the JSON in binary form, as tritonclient sends them. Texts are BYTES "
        "[n, 1]; token ids are INT32 or INT64 [n, length]. Version 1 is also at /v2/models/{model}/versions/1.",
        "parameters": [_model()],
        "requestBody": _json(_schema("Request"), request),
        "responses": {"200": success, **_errors()},
        "security": [{"token": []}, {}],
    }


def _get(summary: str, schema: Any, *, of_model: bool = False, open_to_all: bool = False) -> OpenApi:
    """Return an operation without a request body. Without a schema, its response is text."""
    content = _json(schema) if schema else {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "summary": summary,
        "parameters": [_model()] if of_model else [],
        "responses": {"200": {"description": "Success.", **content}, **_errors()},
        "security": [] if open_to_all else [{"token": []}, {}],
    }


def _errors(schema: str = "Error") -> OpenApi:
    return {str(code): {"description": text, **_json(_schema(schema))} for code, text in _ERRORS.items()}


def _model() -> OpenApi:
    return {"name": "model", "in": "path", "required": True, "schema": _NAME, "description": "The name of the model."}


def _json(schema: OpenApi, examples: OpenApi | None = None) -> OpenApi:
    shown = {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}
    return {"content": {"application/json": {"schema": schema, **shown}}}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _record(required: str, **properties: Any) -> OpenApi:
    return {"type": "object", "required": required.split(), "properties": properties}


def _array(items: Any, **more: Any) -> OpenApi:
    return {"type": "array", "items": items, **more}


def _schemas(limits: "Limits") -> OpenApi:
    """Return the named schemas. Code generators use the names as class names, so the names are public."""
    text = {"type": "string", "maxLength": limits.max_characters}
    texts = {"anyOf": [text, _array(text, minItems=1, maxItems=limits.max_queue)]}
    return {
        "Texts": _record("text", text=texts, pair=texts) | {"additionalProperties": False},
        "Label": _record(
            "",
            label={"type": ["string", "null"]},
            score=_NUMBER,
            labels=_array({"type": "string"}),
            scores={"type": "object", "additionalProperties": _NUMBER},
            embedding=_array(_NUMBER),
            entities=_array(_entity()),
            truncated={"type": "boolean", "description": "True if the text is longer than the model reads."},
            stage={"type": "string", "description": "The stage of a cascade that answered the row: first or second."},
        )
        | {"anyOf": [{"required": keys.split()} for keys in ("label score", "labels scores", "embedding", "entities")]},
        "Info": _record(
            "name labels precision backend device artefact bundle_sha256 examples",
            name=_NAME,
            labels=_array(_NAME),
            precision=_NAME,
            backend=_NAME,
            device=_NAME,
            artefact=_record("file sha256", file=_NAME, sha256=_NAME),
            bundle_sha256=_NAME,
            examples=_array(_schema("Texts"), minItems=1),
        ),
        **_schemas_of_others(texts, text, limits.max_queue),
        **_protocol_schemas(),
        "Error": _record("error", error={"type": "string"}),
    }


def _schemas_of_others(texts: OpenApi, text: OpenApi, most: int) -> OpenApi:
    """Return the named schemas of requests and responses in the form of other servers."""
    count, flag = {"type": "integer", "minimum": 0}, {"type": "boolean"}
    vector = {"anyOf": [_array(_NUMBER), {"type": "string", "contentEncoding": "base64"}]}
    embedded = _record("object index embedding", object=_NAME, index=count, embedding=vector, truncated=flag)
    usage = _record("prompt_tokens total_tokens", prompt_tokens=count, total_tokens=count)
    ranked = _record("index score", index=count, score=_NUMBER, text={"type": "string"}, truncated=flag)
    forms = {"enum": ["float", "base64"]}
    nullable = {"type": ["string", "null"]}
    detail = _record("message type param code", message=_NAME, type=_NAME, param=nullable, code=nullable)
    return {
        "Embeddings": _record("input", input=texts, model=_NAME, encoding_format=forms, dimensions=count, user=_NAME)
        | {"additionalProperties": False},
        "Vectors": _record("object data model usage", object=_NAME, data=_array(embedded), model=_NAME, usage=usage),
        "Rerank": _record(
            "query texts",
            query=text,
            texts=_array(text, minItems=1, maxItems=most),
            raw_scores=flag,
            return_text=flag,
            truncate=flag,
            truncation_direction={"enum": ["right", "Right"]},
        )
        | {"additionalProperties": False},
        "Ranks": _array(ranked),
        "EmbeddingsError": _record("error", error=detail),
        "RerankError": _record("error error_type", error=_NAME, error_type=_NAME),
    }


def _entity() -> OpenApi:
    place = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    return _record("label score start end text", label=text, score=_NUMBER, start=place, end=place, text=text)


def _protocol_schemas() -> OpenApi:
    """Return the named schemas of the Open Inference Protocol."""
    shape = _array({"type": "integer", "minimum": 1}, minItems=1, maxItems=2)
    datatype, parameters = {"enum": list(NUMPY)}, {"type": "object"}
    value = {"type": ["string", "number", "boolean"]}
    answer = _array({"type": ["string", "number", "boolean", "null"]})
    output = _record("name datatype shape", name=_NAME, datatype=datatype, shape=shape, data=answer)
    described = _array(_record("name datatype shape", name=_NAME, datatype=datatype, shape=_array({"type": "integer"})))
    return {
        "Input": _record("name datatype shape data", name=_NAME, datatype=datatype, shape=shape, data=_array(value)),
        "Wanted": _record("name", name=_NAME, parameters=parameters),
        "Request": _record(
            "inputs",
            id={"type": "string"},
            inputs=_array(_schema("Input"), minItems=1),
            outputs=_array(_schema("Wanted")),
            parameters=parameters,
        ),
        "Answer": _record(
            "model_name model_version outputs",
            id={"type": "string"},
            model_name=_NAME,
            model_version=_NAME,
            outputs=_array(output),
            parameters=parameters,
        ),
        "Model": _record(
            "name versions inputs outputs",
            name=_NAME,
            versions=_array(_NAME),
            platform=_NAME,
            inputs=described,
            outputs=described,
        ),
        "Server": _record("name version extensions", name=_NAME, version=_NAME, extensions=_array(_NAME)),
        "Index": _array(_record("name version state", name=_NAME, version=_NAME, state=_NAME)),
    }
