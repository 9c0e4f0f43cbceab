"""The real service while engines fail and clients misbehave: whoever asks rightly is answered rightly, all the time.

It runs in a process of its own, on a model of so many classes that an answer is megabytes long. Its engine fails on
one token. Its clock stands still: it looks for silent clients when it gets a signal.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket

import aiohttp
import grpc
import numpy as np
import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe
from toolchain.serve.proto import MESSAGES

CLASSES, ROWS = 2000, 64
GUILTY = 4  # [MASK], which no text of these tests holds
CLIENTS = 12
GROWTH = 1.15
"""Resident memory after the second round of a nuisance, over that after the first."""
SCRIPT = f"""
import asyncio, signal
from contextlib import contextmanager
from toolchain.serve import engines, server

open_runtime, server.IDLE_S = engines.open_runtime, 10**6

class HttpServer(server.HttpServer):
    silent = {{}}

    async def start(self):
        await super().start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.look)

    def look(self):
        self.silent = server.sweep(list(self.state.connections), self.silent)

@contextmanager
def failing(*model, **choices):
    with open_runtime(*model, **choices) as infer:
        def run(batch):
            if {GUILTY} in batch["input_ids"]:
                raise RuntimeError("/secret/model.onnx")
            return infer(batch)
        yield run

engines.open_runtime, server.HttpServer = failing, HttpServer
"""


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory):
    home = tmp_path_factory.mktemp("wide")
    checkpoint = tiny.make_checkpoint(home / "model", labels=CLASSES)
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
    with processes.running(bundle, "--timeout", 600, script=SCRIPT) as found:  # a machine that stands still is no fault
        yield found
        assert "Traceback" not in found.said()


def asked(texts, output="LOGITS"):
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
    return {"inputs": [tensor], "outputs": [{"name": output}]}


GUILTY_ONE = {
    "inputs": [
        {"name": name, "datatype": "INT64", "shape": [1, 3], "data": data}
        for name, data in (("input_ids", [2, GUILTY, 3]), ("attention_mask", [1, 1, 1]))
    ]
}
GOOD = [f"a {word} film" for word in ("good", "bad", "great", "poor", "fine", "dull", "warm", "cold")]
LARGE = json.dumps({"inputs": asked(GOOD * (ROWS // len(GOOD)))["inputs"]}).encode()


def raw(body, length=None):
    """Return a request for inference as bytes."""
    head = f"POST /v2/models/sentiment/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def logits_of(session, served, text):
    async with session.post(served.infer_url(), json=asked([text])) as answer:
        assert answer.status == 200, await answer.text()
        return np.array((await answer.json())["outputs"][0]["data"], np.float32)


@contextlib.asynccontextmanager
async def asking_rightly(served):
    """Ask without a pause while the block runs; yields what counts the answers, and fails where one is not right."""
    over, answered = asyncio.Event(), asyncio.Semaphore(0)
    # A connection each: one that is kept may be closed as silent just when the next request is sent.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        expected = [await logits_of(session, served, text) for text in GOOD]

        async def client(number):
            while not over.is_set():
                number = (number + 1) % len(GOOD)
                found = await logits_of(session, served, GOOD[number])
                np.testing.assert_allclose(found, expected[number], atol=1e-4)
                answered.release()

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
            yield answered
            over.set()


def check_quiet(served):
    """Nothing is left of all that was asked."""
    found = served.metrics()
    assert found["nv_inference_pending_request_count"] == 0
    assert found["OTHER"] == 0


def test_an_engine_that_fails_in_a_batch_fails_the_guilty_alone(served):
    async def scenario():
        async with asking_rightly(served), aiohttp.ClientSession() as session:
            found = []
            for _ in range(40):
                async with session.post(served.infer_url(), json=GUILTY_ONE) as answer:
                    found.append((answer.status, await answer.json()))
            async with session.get(f"{served.url}/v2/health/ready") as answer:
                return found, answer.status

    before = served.metrics()["BACKEND"]
    found, ready = asyncio.run(scenario())
    assert found == [(500, {"error": "The model failed on this request"})] * 40
    assert ready == 200
    assert served.metrics()["BACKEND"] - before == 40
    assert max(map(int, re.findall(r"a batch of (\d+) requests failed", served.said()))) > 1
    check_quiet(served)


async def leave(served, generator, answered):
    """Ask for much and leave, in the middle of the request or of the answer; half of the clients without a goodbye."""
    host, port = served.address.split(":")
    whole = raw(LARGE)
    end = generator.choice([generator.randrange(len(whole)), len(whole)])
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(whole[:end])
    await writer.drain()
    if end == len(whole):
        await reader.readexactly(generator.choice([0, generator.randrange(1000)]))
    if generator.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def cancel(served, generator, answered):
    """Ask for much over gRPC, and cancel at once or when others were answered meanwhile."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [ROWS, 1], "contents": {"bytes_contents": [b"a"] * ROWS}}
    request = MESSAGES["inference.ModelInferRequest"](model_name="sentiment", inputs=[tensor])
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        await channel.channel_ready()
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString())
        for _ in range(generator.randrange(5)):
            await answered.acquire()
        call.cancel()


async def twice(served, nuisance):
    """Do something a hundred times and again, and return the resident memory after each."""
    generator = random.Random(5)
    found = []
    async with asking_rightly(served) as answered:
        for _ in range(2):
            for _ in range(10):
                await asyncio.gather(*(nuisance(served, generator, answered) for _ in range(10)))
            for _ in range(2 * CLIENTS):
                await answered.acquire()
            found.append(served.resident_mb())
    return found


@pytest.mark.parametrize("nuisance", [leave, cancel])
def test_clients_that_leave_in_the_middle_harm_nobody(served, nuisance):
    before = served.metrics()["CANCELED"]
    first, second = asyncio.run(twice(served, nuisance))
    assert second < GROWTH * first
    assert served.metrics()["CANCELED"] > before  # the work for them was ended
    check_quiet(served)


def narrow(served):
    """Return a connection that takes a few kilobytes before it must be read."""
    host, port = served.address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    return client


def test_clients_that_neither_read_nor_write_are_hung_up_on(served):
    """One reads no answer, one none of three, one sends half a body, one none of it, one half a head, one nothing."""
    sent = [raw(LARGE), raw(LARGE) * 3, raw(LARGE)[:500], raw(b"", 9), b"POST / HT", b""]

    async def scenario():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(narrow(served)) for _ in range(4 * len(sent))]
            for client, data in zip(clients, sent * 4, strict=True):
                client.sendall(data)
            ports = {client.getsockname()[1] for client in clients}
            assert ports <= served.clients()
            async with asking_rightly(served) as answered:
                while ports & served.clients():
                    served.process.send_signal(signal.SIGUSR1)
                    for _ in range(3 * CLIENTS):
                        await answered.acquire()

    asyncio.run(scenario())
    check_quiet(served)


def test_clients_that_read_and_write_slowly_get_all_of_a_right_answer(served):
    async def slowly(answered, whole):
        """Write and read a little at a time, whenever another client was answered."""
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
        async with asking_rightly(served) as answered, aiohttp.ClientSession() as session:
            found = await asyncio.gather(*(slowly(answered, raw(LARGE)) for _ in range(4)))
            return found, [await logits_of(session, served, text) for text in GOOD]

    found, alone = asyncio.run(scenario())
    for head, answer in found:
        assert head.startswith(b"HTTP/1.1 200")
        (logits,) = [output["data"] for output in answer["outputs"] if output["name"] == "LOGITS"]
        expected = np.tile(np.concatenate(alone), ROWS // len(GOOD))
        np.testing.assert_allclose(logits, expected, atol=1e-4)
