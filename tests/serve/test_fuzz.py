"""Damaged requests to the real service: each is answered or refused, none hangs, and memory does not grow.

test_codec.py and test_servicer.py send ten thousand of the same kind directly to the parsers.
"""

import asyncio
import http.client
import random
from collections import Counter

import grpc
import pytest

from toolchain.serve.http.codec import LENGTH_HEADER

CASES = 3000

# Largest resident memory after the second round, relative to that after the first.
GROWTH = 1.1


@pytest.fixture(scope="module")
def whole(by_path):
    """The module with valid requests."""
    return by_path("serve/triton_answers")


def damaged(data, generator):
    """Return bytes with up to three of them changed, removed or inserted."""
    blob = bytearray(data)
    for _ in range(generator.randrange(4)):
        at = generator.randrange(len(blob))
        blob[at : at + generator.randrange(2)] = generator.randbytes(generator.randrange(2))
    return bytes(blob)


def over_http(served, whole, generator):
    """Return the number of responses of each status."""
    client = http.client.HTTPConnection(served.address, timeout=60)
    found = Counter()
    for _ in range(CASES):
        case = whole.HTTP[generator.choice(["bin OK", "bin OK bin out", "OK json", "nested data ok"])]
        headers = dict(case.headers)
        if headers and generator.random() < 0.1:
            headers = {LENGTH_HEADER.decode(): str(generator.randrange(-2, 300))}
        client.request("POST", case.path, damaged(case.body, generator), headers)
        answer = client.getresponse()
        found[str(answer.status)] += 1
        assert answer.read()
    client.close()
    return found


def over_grpc(served, whole, generator):
    async def outcome(call, blob):
        try:
            await call(blob, timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def ask():
        names = [generator.choice(["ok raw", "ok typed", "too many raw"]) for _ in range(CASES)]
        blobs = [damaged(whole.GRPC[name].request.SerializeToString(), generator) for name in names]
        async with grpc.aio.insecure_channel(served.grpc) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            found = Counter()
            for start in range(0, CASES, 100):
                found += Counter(await asyncio.gather(*(outcome(call, blob) for blob in blobs[start : start + 100])))
            return found

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("ask", "right", "wrong", "allowed"),
    [
        (over_http, "200", "400", {"200", "400", "404", "413", "503"}),
        (over_grpc, "OK", "INVALID_ARGUMENT", {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE"}),
    ],
)
def test_damaged_requests_are_answered_or_refused(served_demo, whole, ask, right, wrong, allowed):
    generator = random.Random(13)
    resident = []
    for _ in range(2):
        found = ask(served_demo, whole, generator)
        assert set(found) <= allowed
        assert found[right] > CASES // 10 < found[wrong]
        resident.append(served_demo.resident_mb())
    assert resident[1] < GROWTH * resident[0]
    metrics = served_demo.metrics()
    assert (metrics["nv_inference_pending_request_count"], metrics["OTHER"], metrics["BACKEND"]) == (0, 0, 0)
