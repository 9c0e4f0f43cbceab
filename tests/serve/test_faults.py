"""The real service while engines fail and clients misbehave: every valid request still gets the right response.

The service runs in a process of its own. Its model has so many classes that a response is megabytes long. Its engine
fails on one token. It looks for idle clients when it gets a signal, and not at an interval.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import time

import aiohttp
import grpc
import numpy as np
import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe
from toolchain.serve.proto import MESSAGES

CLASSES, ROWS = 2000, 64
CLS, SEP, MASK = 2, 3, 4
FAILING, HELD = [CLS, MASK, SEP], [SEP, SEP, SEP]  # no text of these tests has [MASK], and each has [CLS]
CLIENTS = 12

# Largest resident memory after the second round of a nuisance, relative to that after the first.
GROWTH = 1.15
SCRIPT = f"""
import asyncio, signal, sys, threading, time
from contextlib import contextmanager
from toolchain.serve import server
from toolchain.serve.batching import engines
from toolchain.serve.http import server as http_server

open_runtime, http_server.SILENT_S = engines.open_runtime, 10**6
released = threading.Semaphore(0)

class HttpServer(http_server.HttpServer):
    last = 0.0

    async def start(self):
        await super().start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.hang_up_silent)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, released.release)

    def hang_up_silent(self):
        "Close the connections that have been silent since the last signal."
        self.places.hang_up_silent(time.monotonic() - self.last)
        self.last = time.monotonic()

@contextmanager
def failing(*model, **choices):
    with open_runtime(*model, **choices) as infer:
        def run(batch):
            if {MASK} in batch["input_ids"]:
                raise RuntimeError("/secret/model.onnx")
            if {CLS} not in batch["input_ids"]:
                print("A request is held.", file=sys.stderr, flush=True)
                released.acquire()
            return infer(batch)
        yield run

engines.open_runtime, server.HttpServer = failing, HttpServer
"""


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory):
    home = tmp_path_factory.mktemp("wide")
    checkpoint = tiny.make_checkpoint(home / "model", labels=CLASSES, n_layers=1)
    build(
        Recipe.make(
            {
                "model": str(checkpoint),
                "task": "custom",
                "text_column": "sentence",
                "label_column": "label",
                "precision": "fp32",
                "output": str(home / "wide"),
            }
        ),
        engine=False,
    )
    return home / "wide"


@pytest.fixture(scope="module")
def served(processes, bundle):
    with processes.running(bundle, "--timeout", 600, script=SCRIPT) as found:  # long enough for a machine that is busy
        yield found
        assert "Traceback" not in found.stderr()


def inference(texts, output="LOGITS"):
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
    return {"inputs": [tensor], "outputs": [{"name": output}]}


def of_tokens(row):
    """Return a request with one row of three tokens."""
    tensors = {"input_ids": row, "attention_mask": [1, 1, 1]}
    return {"inputs": [{"name": n, "datatype": "INT64", "shape": [1, 3], "data": d} for n, d in tensors.items()]}


GOOD = [f"a {word} film" for word in ("good", "bad", "great", "poor", "fine", "dull", "warm", "cold")]
LARGE = json.dumps({"inputs": inference(GOOD * (ROWS // len(GOOD)))["inputs"]}).encode()


def raw(body, length=None):
    """Return an inference request as the bytes of HTTP."""
    head = f"POST /v2/models/sentiment/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def logits_of(session, served, text):
    async with session.post(served.infer_url(), json=inference([text])) as answer:
        assert answer.status == 200, await answer.text()
        return np.array((await answer.json())["outputs"][0]["data"], np.float32)


@contextlib.asynccontextmanager
async def valid_requests(served):
    """Send valid requests without a pause, and yield a semaphore that counts the responses. A wrong response fails."""
    stop, answered = asyncio.Event(), asyncio.Semaphore(0)
    # Each request has a connection of its own, because the server may close a kept one as idle at any moment.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        expected = [await logits_of(session, served, text) for text in GOOD]

        async def client(number):
            while not stop.is_set():
                number = (number + 1) % len(GOOD)
                found = await logits_of(session, served, GOOD[number])
                np.testing.assert_allclose(found, expected[number], atol=1e-4)
                answered.release()

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
            yield answered
            stop.set()


def check_nothing_is_left(served):
    """Assert that no request is pending and none failed with a bug."""
    found = served.metrics()
    assert found["nv_inference_pending_request_count"] == 0
    assert found["OTHER"] == 0


def test_a_failing_request_fails_alone_even_in_a_batch(served):
    async def scenario():
        async with valid_requests(served), aiohttp.ClientSession() as session:
            found = []
            for _ in range(40):
                async with session.post(served.infer_url(), json=of_tokens(FAILING)) as answer:
                    found.append((answer.status, await answer.json()))
            async with session.get(f"{served.url}/v2/health/ready") as answer:
                return found, answer.status

    before = served.metrics()["BACKEND"]
    found, ready = asyncio.run(scenario())
    assert found == [(500, {"error": "The model failed on this request"})] * 40
    assert ready == 200
    assert served.metrics()["BACKEND"] - before == 40
    assert max(map(int, re.findall(r"a batch of (\d+) requests failed", served.stderr()))) > 1
    check_nothing_is_left(served)


async def leave(served, generator, answered):
    """Send a large request and leave: during the request, at once, after others were answered, or in the response.

    Half of the clients reset the connection.
    """
    host, port = served.address.split(":")
    whole = raw(LARGE)
    end = generator.choice([generator.randrange(len(whole)), len(whole)])
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(whole[:end])
    await writer.drain()
    if end == len(whole):
        for _ in range(generator.randrange(5)):
            await answered.acquire()
        await reader.readexactly(generator.choice([0, generator.randrange(1000)]))
    if generator.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def cancel(served, generator, answered):
    """Send a large request over gRPC, and cancel it at once or after other clients were answered."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [ROWS, 1], "contents": {"bytes_contents": [b"a"] * ROWS}}
    request = MESSAGES["inference.ModelInferRequest"](model_name="sentiment", inputs=[tensor])
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        await channel.channel_ready()
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString())
        for _ in range(generator.randrange(5)):
            await answered.acquire()
        call.cancel()


async def twice(served, nuisance):
    """Run a nuisance a hundred times, twice, and return the resident memory after each hundred."""
    generator = random.Random(5)
    found = []
    async with valid_requests(served) as answered:
        for _ in range(2):
            for _ in range(10):
                await asyncio.gather(*(nuisance(served, generator, answered) for _ in range(10)))
            for _ in range(2 * CLIENTS):
                await answered.acquire()
            found.append(served.resident_mb())
    return found


@pytest.mark.parametrize("nuisance", [leave, cancel])
def test_clients_that_leave_do_not_disturb_others(served, nuisance):
    first, second = asyncio.run(twice(served, nuisance))
    assert second < GROWTH * first
    check_nothing_is_left(served)


async def leave_while_held(served, held):
    """Send a request that the engine holds, wait with `held()`, and close the connection."""
    host, port = served.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw(json.dumps(of_tokens(HELD)).encode()))
    await asyncio.to_thread(held)
    writer.close()


async def cancel_while_held(served, held):
    """Send a request that the engine holds over gRPC, wait with `held()`, and cancel the call."""
    tensors = [
        {"name": t["name"], "datatype": t["datatype"], "shape": t["shape"], "contents": {"int64_contents": t["data"]}}
        for t in of_tokens(HELD)["inputs"]
    ]
    request = MESSAGES["inference.ModelInferRequest"](model_name="sentiment", inputs=tensors)
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        await channel.channel_ready()
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString())
        await asyncio.to_thread(held)
        call.cancel()


@pytest.mark.parametrize("leaving", [leave_while_held, cancel_while_held])
def test_the_request_of_a_client_that_leaves_is_cancelled(served, leaving):
    def held():
        while served.stderr().count("A request is held.") == lines:
            time.sleep(0.01)

    lines, before = served.stderr().count("A request is held."), served.metrics()["CANCELED"]
    asyncio.run(leaving(served, held))
    while served.metrics()["CANCELED"] == before:
        time.sleep(0.01)
    served.process.send_signal(signal.SIGUSR2)
    check_nothing_is_left(served)


def narrow(served):
    """Return a connection whose receive buffer holds a few kilobytes."""
    host, port = served.address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    return client


def test_connections_of_idle_clients_are_closed(served):
    """They read no response, or none of three; they send half a body, no body, half a head, or nothing."""
    sent = [raw(LARGE), raw(LARGE) * 3, raw(LARGE)[:500], raw(b"", 9), b"POST / HT", b""]

    async def scenario():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(narrow(served)) for _ in range(4 * len(sent))]
            for client, data in zip(clients, sent * 4, strict=True):
                client.sendall(data)
            ports = {client.getsockname()[1] for client in clients}
            assert ports <= served.clients()
            async with valid_requests(served) as answered:
                while ports & served.clients():
                    served.process.send_signal(signal.SIGUSR1)
                    for _ in range(3 * CLIENTS):
                        await answered.acquire()

    asyncio.run(scenario())
    check_nothing_is_left(served)


def test_slow_clients_get_the_whole_response(served):
    async def slowly(answered, whole):
        """Write and read a little at a time, each time that another client was answered."""
        host, port = served.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        for start in range(0, len(whole), 400):
            await answered.acquire()
            writer.write(whole[start : start + 400])
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        left, parts = int(re.search(rb"content-length: (\d+)", head)[1]), []
        while left:
            await answered.acquire()
            parts.append(await reader.readexactly(min(left, 100_000)))
            left -= len(parts[-1])
        writer.close()
        return head, json.loads(b"".join(parts))

    async def scenario():
        async with valid_requests(served) as answered, aiohttp.ClientSession() as session:
            found = await asyncio.gather(*(slowly(answered, raw(LARGE)) for _ in range(4)))
            return found, [await logits_of(session, served, text) for text in GOOD]

    found, alone = asyncio.run(scenario())
    for head, answer in found:
        assert head.startswith(b"HTTP/1.1 200")
        (logits,) = [output["data"] for output in answer["outputs"] if output["name"] == "LOGITS"]
        expected = np.tile(np.concatenate(alone), ROWS // len(GOOD))
        np.testing.assert_allclose(logits, expected, atol=1e-4)
