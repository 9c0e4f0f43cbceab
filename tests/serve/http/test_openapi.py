"""Requests made from the real service's OpenAPI document: what it promises holds, and nothing makes it fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from toolchain.serve.http import openapi
from toolchain.serve.limits import Limits

PROMISES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.unsupported_method,
]
"""Of every request, right or wrong. What JSON Schema cannot say, such as sizes that belong together, may be 400."""

load_all_checks()
OPERATIONS = [(path, verb) for path, verbs in openapi.document(Limits())["paths"].items() for verb in verbs]
WRONG = [("/classify", "post"), ("/v2/models/{model}/infer", "post")]
"""Those that can be asked wrongly at all."""


@pytest.mark.parametrize(
    ("path", "verb", "mode"),
    [(*one, GenerationMode.POSITIVE) for one in OPERATIONS] + [(*one, GenerationMode.NEGATIVE) for one in WRONG],
)
def test_what_is_promised_holds(served_demo, path, verb, mode):
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
        case.validate_response(response, checks=PROMISES)

    ask()
    assert statuses & ({200} if mode is GenerationMode.POSITIVE and path != WRONG[1][0] else {400})
