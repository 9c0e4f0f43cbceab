"""The real service under load: with Triton's load generator, and with ten times more requests than it can answer."""

import asyncio
import time
from collections import Counter

import aiohttp
import numpy as np
import pytest

from toolchain.data.probes import PROBES
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run

CLIENTS, QUEUE = 320, 32
GROWTH_MB = 64


@pytest.fixture(scope="module")
def server(processes, demo_bundle):
    """A service with a short queue, in a process of its own."""
    with processes.running(demo_bundle, "--max-queue", QUEUE, "--max-batch", QUEUE) as found:
        yield found


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_perf_analyzer_measures_the_service(server, perf_analyzer, by_path, tmp_path, wire):
    address = server.address if wire == "http" else server.grpc
    assert by_path("triton/perf").measured_per_s(perf_analyzer, tmp_path, wire, address, PROBES) > 0


def expected(bundle):
    target = find_target({"backend": "ort", "device": "cpu"}, bundle)
    with open_runtime("ort", target.model, device="cpu") as infer:
        return run(infer, target.resolved.encode([(text,) for text in PROBES])).logits


def body(text):
    return {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [text]}],
        "outputs": [{"name": "LOGITS"}],
    }


async def overload(url, logits, seconds):
    """Send requests without a pause from ten times more clients than the queue holds; return statuses and faults."""
    found, wrong = Counter(), []
    end = time.monotonic() + seconds

    async def client(session, number):
        while time.monotonic() < end:
            number = (number + 1) % len(PROBES)
            async with session.post(url, json=body(PROBES[number])) as answer:
                found[answer.status] += 1
                if answer.status == 200:
                    (output,) = (await answer.json())["outputs"]
                    if not np.allclose(output["data"], logits[number], atol=1e-4):
                        wrong.append((number, output["data"]))
                elif answer.headers.get("Retry-After") != "1" or "queue size" not in (await answer.text()):
                    wrong.append((number, answer.headers))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session, number) for number in range(CLIENTS)))
    return found, wrong


@pytest.mark.parametrize(
    "seconds", [pytest.param(5, marks=pytest.mark.short), pytest.param(30, marks=pytest.mark.stress)]
)
def test_overload_is_refused_with_503_and_accepted_requests_get_the_right_logits(server, demo_bundle, seconds):
    logits = expected(demo_bundle)
    before = server.resident_mb()
    found, wrong = asyncio.run(overload(server.infer_url(), logits, seconds))
    assert wrong == []
    assert set(found) == {200, 503}
    assert server.resident_mb() - before < GROWTH_MB
