"""Silent connections and streams held open: health answers at once, and a client with a token gets its responses."""

import asyncio
import contextlib
import http.client
import json
import socket

import grpc
import pytest

from toolchain.serve.proto import HEALTH, INFERENCE, MESSAGES

TOKEN = "a-token-of-some-length"
REQUESTS = 50


@pytest.fixture
def served(processes, demo_bundle, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with processes.running(demo_bundle, "--token-file", tmp_path / "token", "-q") as found:
        yield found


def ask(served, method, path, body=None, timeout=60):
    with contextlib.closing(http.client.HTTPConnection(served.address, timeout=timeout)) as client:
        client.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        return client.getresponse().status


def text():
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "contents": {"bytes_contents": [b"a good film"]}}
    return MESSAGES["inference.ModelInferRequest"](model_name="sentiment", inputs=[tensor]).SerializeToString()


@contextlib.asynccontextmanager
async def streams(address, count):
    """Hold streams and calls that send nothing, on a connection for each thousand of them."""
    async with contextlib.AsyncExitStack() as stack:
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        calls = []
        for first in range(0, count, 1000):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            await channel.channel_ready()
            for number in range(first, min(count, first + 1000)):
                kind = channel.stream_unary if number % 2 else channel.stream_stream
                call = kind(f"/{INFERENCE}/{'ModelInfer' if number % 2 else 'ModelStreamInfer'}")(metadata=metadata)
                with contextlib.suppress(grpc.aio.AioRpcError):  # it has given way already
                    await call.wait_for_connection()
                calls.append(call)
        yield calls


@pytest.mark.parametrize(("connections", "calls"), [(1200, 400), pytest.param(2000, 4000, marks=pytest.mark.stress)])
def test_silent_clients_lock_nobody_out(served, connections, calls):
    host, port = served.address.split(":")

    async def scenario(stack):
        async with streams(served.grpc, calls), grpc.aio.insecure_channel(served.grpc) as channel:
            for _ in range(connections):
                stack.enter_context(socket.create_connection((host, int(port)), 60))
            found = [await asyncio.to_thread(ask, served, "GET", path) for path in ("/v2/health/live", "/metrics")]
            for _ in range(REQUESTS):
                body = json.dumps({"text": "a good film"})
                found.append(await asyncio.to_thread(ask, served, "POST", "/classify", body))
            health = channel.unary_unary(f"/{HEALTH}/Check")
            infer = channel.unary_unary(f"/{INFERENCE}/ModelInfer")
            for _ in range(REQUESTS):
                assert await health(b"", timeout=60)
                assert await infer(text(), metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=60)
            return set(found)

    with contextlib.ExitStack() as stack:
        assert asyncio.run(scenario(stack)) == {200}
    assert "Traceback" not in served.stderr()
