"""A gRPC server on a free port and a client of it, in one event loop, with the service's own messages."""

import struct
from contextlib import asynccontextmanager

import grpc

from toolchain.serve.grpc.servicer import GrpcServer
from toolchain.serve.proto import INFERENCE, MESSAGES, SERVICES

# What asyncio logs when gRPC's library has an event for a loop that has ended, which may be that of a test before.
ENDED_LOOP = "Exception in callback PollerCompletionQueue"
HI = struct.pack("<I", 2) + b"hi"


class Client:
    def __init__(self, channel, metadata=()):
        self.channel, self.metadata = channel, metadata

    async def call(self, method, request=b"", *, service=INFERENCE, timeout=20):
        """Return the response. The request is a message, a dict of its fields, or bytes that are sent as they are."""
        found = SERVICES[service].methods_by_name[method]
        if isinstance(request, dict):
            request = MESSAGES[found.input_type.full_name](**request)
        blob = request if isinstance(request, bytes) else request.SerializeToString()
        call = self.channel.unary_unary(f"/{service}/{method}")
        return MESSAGES[found.output_type.full_name].FromString(
            await call(blob, timeout=timeout, metadata=self.metadata)
        )

    async def outcome(self, method, request=b"", **options):
        """Return the status and the message of a call."""
        try:
            await self.call(method, request, **options)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        return "OK", ""


@asynccontextmanager
async def serving(service, *, channel=None, metadata=(), **options):
    server = GrpcServer(service, "127.0.0.1", 0, **options)
    await server.start()
    try:
        async with channel or grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
            client = Client(opened, metadata)
            client.server = server
            yield client
    finally:
        await server.stop(0)


def text(value=b"hi", **changes):
    """Return a ModelInferRequest of one text in raw form; a change replaces a field, None removes it."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1]} | changes.pop("tensor", {})
    blob = struct.pack("<I", len(value)) + value
    fields = {"model_name": "demo", "id": "g1", "inputs": [tensor], "raw_input_contents": [blob]} | changes
    return MESSAGES["inference.ModelInferRequest"](**fields)


def tokens(**raw):
    """Return a ModelInferRequest of two token ids in raw form."""
    blobs = {"input_ids": struct.pack("<qq", 3, 4), "attention_mask": struct.pack("<qq", 1, 1)} | raw
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, 2]} for name in blobs]
    return MESSAGES["inference.ModelInferRequest"](
        model_name="demo", id="g1", inputs=inputs, raw_input_contents=blobs.values()
    )
