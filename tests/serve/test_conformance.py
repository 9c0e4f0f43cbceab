"""The real service against recorded responses of a real Triton: same status and text, or a listed difference."""

import asyncio
import http.client
import re

import grpc
import pytest


@pytest.fixture(scope="module")
def recorded(by_path):
    return by_path("serve/triton_answers")


@pytest.fixture(scope="module")
def wire(by_path):
    return by_path("grpc_wire")


def expected(cases, differences):
    """Return status and phrase of each case: Triton's, or this service's where it differs on purpose."""
    found = {}
    for name, case in cases.items():
        ours = differences.get(name)
        phrase = case.phrase if ours is None or ours.phrase is None else ours.phrase
        found[name] = (ours.status if ours else case.status, phrase)
    return found


def mismatches(found, cases):
    """Return the cases whose status differs, or whose response lacks the phrase."""
    return {
        name: (found[name], case)
        for name, case in cases.items()
        if found[name][0] != case[0] or case[1] not in found[name][1]
    }


def test_http_responses_are_tritons_or_a_listed_difference(served_demo, recorded):
    client = http.client.HTTPConnection(served_demo.address, timeout=60)
    found = {}
    for name, case in recorded.HTTP.items():
        client.request(case.method, case.path, case.body, case.headers)
        answer = client.getresponse()
        found[name] = (answer.status, answer.read().decode(errors="replace"))
    client.close()
    assert mismatches(found, expected(recorded.HTTP, recorded.HTTP_DIFFERS)) == {}


def test_grpc_responses_are_tritons_or_a_listed_difference(served_demo, recorded, wire):
    async def ask():
        async with grpc.aio.insecure_channel(served_demo.grpc) as channel:
            client = wire.Client(channel)
            return {name: await client.outcome(case.method, case.request) for name, case in recorded.GRPC.items()}

    assert mismatches(asyncio.run(ask()), expected(recorded.GRPC, recorded.GRPC_DIFFERS)) == {}


def test_invalid_requests_are_not_counted(served_demo, recorded, wire):
    """A real Triton does not count them either, whether parsing or a check refuses them."""
    names = ("OTHER", "REJECTED", "CANCELED", "BACKEND", "nv_inference_request_success")
    before = served_demo.metrics()
    client = http.client.HTTPConnection(served_demo.address, timeout=60)
    for name in (
        "bad json",
        "no inputs",
        "bogus dtype",
        "bin lying length",
        "wrong input name",
        "wrong rank",
        "batch > max",
        "unknown output",
        "unknown model",
    ):
        case = recorded.HTTP[name]
        client.request(case.method, case.path, case.body, case.headers)
        assert 400 <= client.getresponse().status < 500
        client.close()

    async def ask():
        async with grpc.aio.insecure_channel(served_demo.grpc) as channel:
            cases = [recorded.GRPC[name] for name in ("lying len", "wrong name", "unknown model")]
            return [(await wire.Client(channel).outcome(case.method, case.request))[0] for case in cases]

    assert asyncio.run(ask()) == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "NOT_FOUND"]
    after = served_demo.metrics()
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


@pytest.mark.parametrize("wire_name", ["HTTP", "GRPC"])
def test_every_listed_difference_differs(recorded, wire_name):
    cases, differences = getattr(recorded, wire_name), getattr(recorded, f"{wire_name}_DIFFERS")
    assert set(differences) <= set(cases)
    same = [
        name
        for name, ours in differences.items()
        if ours.status == cases[name].status and ours.phrase in (None, cases[name].phrase)
    ]
    assert same == []


def test_the_tables_equal_the_recording(recorded, shared):
    text = shared("examples/triton_ci/conf.triton.txt").read_text().replace("INPUT0", "input_ids")
    http_text, grpc_text = text.split("## gRPC\n")
    lines = re.findall(r"^(.{42}) (\d+|RAW|EXC) (.*)$", http_text, flags=re.M)
    found = {name.strip(): (status, words) for name, status, words in lines}
    calls = re.findall(r"^(.{42}) ([A-Z_]+) (.*)$", grpc_text, flags=re.M)
    called = {name.strip(): (status, words) for name, status, words in calls}
    called["ok raw"] = ("OK", "")  # in the recording it timed out behind the 70 MiB of the case before
    for record, cases in ((found, recorded.HTTP), (called, recorded.GRPC)):
        assert set(record) - set(recorded.NOT_HERE) == set(cases)
        assert [name for name, case in cases.items() if str(case.status) != record[name][0]] == []
        assert [name for name, case in cases.items() if case.phrase not in record[name][1]] == []
