"""Requests that schemathesis makes from the OpenAPI document: the real service keeps the document and never fails."""

import json
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from tests.head_of import head_of
from toolchain.serve.http import openapi
from toolchain.serve.limits import Limits

# Checks of every response. JSON Schema cannot express that sizes must match, so a valid request may get 400.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.unsupported_method,
]

load_all_checks()
OPERATIONS = [(path, verb) for path, verbs in openapi.document(Limits())["paths"].items() for verb in verbs]

# Operations that can be called with an invalid request.
WITH_BODY = [("/classify", "post"), ("/v2/models/{model}/infer", "post")]


@pytest.mark.parametrize(
    ("path", "verb", "mode"),
    [(*one, GenerationMode.POSITIVE) for one in OPERATIONS] + [(*one, GenerationMode.NEGATIVE) for one in WITH_BODY],
)
def test_responses_keep_the_document(served_demo, path, verb, mode):
    address = served_demo.url
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[path][verb]
    statuses = set()

    @seed(3)
    @settings(max_examples=25, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    def ask(case, known):
        if known and "{model}" in path:
            case.path_parameters = {"model": "sentiment"}
        response = case.call(base_url=address)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    assert statuses & ({200} if mode is GenerationMode.POSITIVE and path != WITH_BODY[1][0] else {400})


@pytest.mark.parametrize("routes", [(), ("/v1/embeddings",), ("/rerank",)])
def test_the_document_is_valid_and_refers_to_each_of_its_components(routes):
    found = openapi.document(Limits(), openapi.Shown(routes=routes))
    OPENAPI_31_VALIDATOR.validate(found)
    text = json.dumps(found)
    parts = [(kind, name) for kind in ("parameters", "responses", "schemas") for name in found["components"][kind]]
    assert [part for part in parts if f'"$ref": "#/components/{"/".join(part)}"' not in text] == []
    referred = {tuple(one.split("/")) for one in re.findall(r'"#/components/([^"]+)"', text)}
    assert referred <= set(parts)


def test_what_a_type_does_not_say_is_in_the_document():
    schemas = openapi.document(Limits(), openapi.Shown(routes=("/v1/embeddings",)))["components"]["schemas"]
    label = schemas["Label"]["anyOf"][0]["properties"]
    assert "longer than the model reads" in label["truncated"]["description"]
    assert "cascade" in label["stage"]["description"]
    assert schemas["Vectors"]["properties"]["data"]["items"]["properties"]["index"]["minimum"] == 0
    assert schemas["Info"]["properties"]["examples"]["minItems"] == 1


def test_the_examples_are_of_the_served_model():
    pairs = openapi.Shown("nli", head_of("no", "maybe", "yes").example, (("a", "b"), ("c", "d")))
    paths = openapi.document(Limits(), pairs)["paths"]

    def example(path, part):
        found = paths[path]["post"]
        found = found["requestBody"] if part == "request" else found["responses"]["200"]
        return [one["value"] for one in found["content"]["application/json"]["examples"].values()]

    assert example("/classify", "request") == [{"text": "a", "pair": "b"}, {"text": ["a", "c"], "pair": ["b", "d"]}]
    (label,) = example("/classify", "response")
    assert (label["label"], list(label["scores"])) == ("yes", ["no", "maybe", "yes"])
    assert sum(label["scores"].values()) == pytest.approx(1)
    (infer,) = example("/v2/models/{model}/infer", "request")
    assert [(one["name"], one["data"]) for one in infer["inputs"]] == [("TEXT", ["a"]), ("TEXT_PAIR", ["b"])]
    assert example("/v2/models/{model}/infer", "response")[0]["model_name"] == "nli"


def test_several_labels_are_a_list_in_the_example():
    shown = openapi.Shown("tags", head_of("a", "b", name="multilabel").example)
    paths = openapi.document(Limits(), shown)["paths"]
    (example,) = paths["/classify"]["post"]["responses"]["200"]["content"]["application/json"]["examples"].values()
    assert example["value"] == {"labels": ["b"], "scores": {"a": 0.02, "b": 0.98}}
    assert shown.output["data"] == ['["b"]']


def test_a_regression_answers_a_number_in_the_example():
    found = openapi.document(Limits(), openapi.Shown("stars", head_of("stars").example))["paths"]["/classify"]["post"]
    (example,) = found["responses"]["200"]["content"]["application/json"]["examples"].values()
    assert example["value"] == {"label": None, "score": 0.98}


@pytest.mark.parametrize(
    ("options", "in_pages", "in_info"),
    [
        ({}, True, True),
        ({"token": "t" * 32}, False, True),
        ({"token": "t" * 32, "public": True}, False, True),
        ({"public": True}, False, False),
    ],
)
def test_rows_of_the_models_data_are_shown_to_nobody_who_lacks_the_token(by_path, options, in_pages, in_info):
    fake = by_path("serve/http_fake")
    service = fake.FakeService(shown=openapi.Shown("secret", head_of("x", "y").example, (("a row",), ("another",))))
    application, headers = fake.Application(service, **options), {"Authorization": f"Bearer {'t' * 32}"}
    for path in ("/docs", "/openapi.json"):
        assert (b"a row" in fake.ask(application, "GET", path).body) == in_pages
    found = fake.ask(application, "GET", "/info", b"", headers).json
    assert ({"text": "a row"} in found["examples"]) == in_info
    assert len(found["examples"]) == 2
    if "token" in options:
        assert fake.ask(application, "GET", "/info").status == 401
