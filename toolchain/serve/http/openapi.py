"""How to ask the service, as an OpenAPI 3.1 document. It says nothing of the model, so it needs no token."""

from typing import TYPE_CHECKING, Any

from toolchain import __version__
from toolchain.serve.datatypes import NUMPY

if TYPE_CHECKING:
    from toolchain.serve.limits import Limits

_ERRORS = {
    400: "The request is wrong, and how.",
    401: "The service needs its token.",
    404: "There is no such model.",
    405: "Not with this method.",
    413: "The body is too large.",
    501: "The body is packed in another way than gzip and deflate.",
    503: "Too busy, not ready or ending. Ask again after the seconds that Retry-After says.",
}
_NAME = {"type": "string", "minLength": 1}
_NUMBER = {"type": ["number", "null"]}


def document(limits: "Limits") -> dict[str, Any]:
    """Return the document of a service with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "toolchain service",
            "version": __version__,
            "description": "One text classifier: plainly, and in the Open Inference Protocol that Triton speaks.",
        },
        "paths": {
            "/classify": {"post": _classify()},
            "/v2/models/{model}/infer": {"post": _infer()},
            "/v2/models/{model}": {"get": _get("Inputs and outputs of the model", _schema("Model"), of_model=True)},
            "/v2/models/{model}/ready": {"get": _get("Is the model ready?", None, of_model=True)},
            "/v2": {"get": _get("The service and its extensions", _schema("Server"))},
            "/v2/repository/index": {"post": _get("The name and state of the model", _schema("Index"))},
            "/v2/health/live": {"get": _get("Is the process alive?", None, open_to_all=True)},
            "/v2/health/ready": {"get": _get("May requests be sent here?", None, open_to_all=True)},
            "/metrics": {"get": _get("Counters in the text form of Prometheus", None)},
        },
        "components": {"schemas": _schemas(limits), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _classify() -> dict[str, Any]:
    examples = {
        "one": {"text": "a gripping film"},
        "several": {"text": ["a gripping film", "two hours that I will not get back"]},
    }
    found = {"anyOf": [_schema("Label"), {"type": "array", "items": _schema("Label")}]}
    answer = {"label": "positive", "score": 0.98, "scores": {"negative": 0.02, "positive": 0.98}}
    return {
        "summary": "Label a text, or several",
        "description": "A list is answered with a list. A model that compares two texts takes the other as `pair`.",
        "requestBody": _json(_schema("Texts"), examples),
        "responses": {"200": {"description": "Its label.", **_json(found, {"one": answer})}, **_errors()},
        "security": [{"token": []}, {}],
    }


def _infer() -> dict[str, Any]:
    text = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a gripping film"]}
    answer = {
        "model_name": "sst2",
        "model_version": "1",
        "outputs": [{"name": "LABEL", "datatype": "BYTES", "shape": [1, 1], "data": ["positive"]}],
    }
    asked = {"text": {"inputs": [text], "outputs": [{"name": "LABEL"}]}}
    found = {"description": "The outputs.", **_json(_schema("Answer"), {"text": answer})}
    return {
        "summary": "Infer, in the Open Inference Protocol",
        "description": "Tensors may also follow the JSON as bytes, as tritonclient sends them. Texts are BYTES "
        "[n, 1]; tokens are INT32 or INT64 [n, length]. Version 1 is also at /v2/models/{model}/versions/1.",
        "parameters": [_model()],
        "requestBody": _json(_schema("Request"), asked),
        "responses": {"200": found, **_errors()},
        "security": [{"token": []}, {}],
    }


def _get(summary: str, schema: Any, *, of_model: bool = False, open_to_all: bool = False) -> dict[str, Any]:
    """Return an operation that takes no body; without a schema, its answer is text."""
    content = _json(schema) if schema else {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "summary": summary,
        "parameters": [_model()] if of_model else [],
        "responses": {"200": {"description": "It is so.", **content}, **_errors()},
        "security": [] if open_to_all else [{"token": []}, {}],
    }


def _errors() -> dict[str, Any]:
    return {str(code): {"description": text, **_json(_schema("Error"))} for code, text in _ERRORS.items()}


def _model() -> dict[str, Any]:
    return {"name": "model", "in": "path", "required": True, "schema": _NAME, "description": "Its name."}


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    shown = {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}
    return {"content": {"application/json": {"schema": schema, **shown}}}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _record(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _schemas(limits: "Limits") -> dict[str, Any]:
    text = {"type": "string", "maxLength": limits.max_characters}
    texts = {"anyOf": [text, _array(text, minItems=1, maxItems=limits.max_batch)]}
    shape = _array({"type": "integer", "minimum": 1}, minItems=1, maxItems=2)
    datatype, parameters = {"enum": list(NUMPY)}, {"type": "object"}
    value = {"type": ["string", "number", "boolean"]}
    output = _record(
        "name datatype shape",
        name=_NAME,
        datatype=datatype,
        shape=shape,
        data=_array({"type": ["string", "number", "boolean", "null"]}),
    )
    described = _array(_record("name datatype shape", name=_NAME, datatype=datatype, shape=_array({"type": "integer"})))
    return {
        "Texts": _record("text", text=texts, pair=texts) | {"additionalProperties": False},
        "Label": _record(
            "label score scores",
            label={"type": "string"},
            score=_NUMBER,
            scores={"type": "object", "additionalProperties": _NUMBER},
        ),
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
        "Error": _record("error", error={"type": "string"}),
    }
