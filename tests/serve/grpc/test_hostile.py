"""Seeded hostile gRPC: no response that belongs to another request, no fault of the service, no descriptor left.

Half of the cases are calls of the library's client: damaged, compressed, too large, cancelled or late messages, unusual
metadata, streams. The others are bytes on a connection of their own: damaged frames of HTTP/2.
"""

import asyncio
import contextlib
import gc
import os
import random
import struct

import grpc
import numpy as np
import pytest

from toolchain.serve.limits import GRPC_IDLE_S
from toolchain.serve.proto import INFERENCE, MESSAGES

INFER, STREAM = f"/{INFERENCE}/ModelInfer", f"/{INFERENCE}/ModelStreamInfer"
ALLOWED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
}
# Of the attack's own calls alone: the server may end the connection of a hostile client, with all calls on it.
ENDED = {"UNAVAILABLE"}
# What gRPC's library logs with a traceback by itself: a name of metadata that is not text, and a client that left
# before its response.
OF_LIBRARY = ("Invalid encoding", "ExecuteBatchError")
AT_ONCE = 50
# Largest resident memory after the cases, relative to that before them.
GROWTH = 1.1
# Between the logits of one text in different batches; those of two texts differ by more.
TOLERANCE = 1e-4
Response = MESSAGES["inference.ModelInferResponse"]


def damaged(generator, data, most=256):
    """Return bytes with up to three of them changed, removed or inserted; new ones are below `most`."""
    blob = bytearray(data)
    for _ in range(generator.randrange(4)):
        at = generator.randrange(len(blob))
        blob[at : at + generator.randrange(2)] = bytes(generator.randrange(most) for _ in range(generator.randrange(2)))
    return bytes(blob)


def logits(response):
    blobs = dict(zip([output.name for output in response.outputs], response.raw_output_contents, strict=True))
    return np.frombuffer(blobs["LOGITS"], "<f4")


def check_length(response, size):
    """Check that the double's response belongs to its request: its logits are the length of its text."""
    assert logits(response).tolist() == [size, -size]


def metadata(generator):
    choices = [
        (("authorization", "Bearer x"), ("authorization", "Bearer y")),
        (("a-bin", generator.randbytes(50)),),
        (("a", "b" * generator.choice([10, 5000, 20_000])),),
        tuple((f"a{n}", "b") for n in range(100)),
    ]
    return generator.choice([(), *choices])


class Attack:
    """The hostile cases against one server."""

    def __init__(self, wire, address, channel, other, *, model="demo", check=check_length):
        self._wire, self._address, self._channel, self._other = wire, address, channel, other
        self._model, self._check, self._generator = model, check, random.Random(18)
        self.codes = set()

    async def run(self, count):
        """Send the cases, AT_ONCE at a time, and with each of them a valid request on another connection."""
        places = asyncio.Semaphore(AT_ONCE)

        async def send(number):
            async with places:
                await asyncio.gather(self._case(number), self._valid(number))

        await asyncio.gather(*map(send, range(count)))

    def _text(self, text, number):
        return self._wire.text(text, id=str(number), model_name=self._model).SerializeToString()

    def _check_own(self, response, number, size):
        """Check that a response belongs to its request."""
        assert response.id == str(number)
        self._check(response, size)

    async def _valid(self, number):
        size = number % 90 + 1
        blob = await self._other.unary_unary(INFER)(self._text(b"a" * size, number), timeout=60)
        self._check_own(Response.FromString(blob), number, size)

    async def _case(self, number):
        kinds = [self._call, self._call, self._stream, self._frames]
        try:
            await self._generator.choice(kinds)(number)
        except grpc.aio.AioRpcError as error:
            # The library's client says this of itself, if it sends a message to a call that has ended.
            if not str(error.details()).startswith("Internal error from Core"):
                self.codes.add(error.code().name)
        except asyncio.CancelledError:
            self.codes.add("CANCELLED")
        else:
            self.codes.add("OK")

    def _message(self, number):
        generator = self._generator
        blob = self._text(b"a" * (number % 90 + 1), number)
        large = self._text(bytes(2 << 20), number) if generator.random() < 0.02 else b""
        return generator.choice([damaged(generator, blob), damaged(generator, blob), blob, large, b""])

    async def _call(self, number):
        generator = self._generator
        method = generator.choice([INFER] * 5 + [STREAM, f"/{INFERENCE}/ModelMetadata", f"/{INFERENCE}/Nope", "/a/b"])
        packing = generator.choice([None, grpc.Compression.Gzip, grpc.Compression.Deflate])
        timeout = generator.choice([60, 60, 60, 0.001])
        # A client that expects one response reads no second one, and would wait for the end.
        counts = [0, 1, 1, 1, 2] if method != STREAM else [0, 1]
        messages = [self._message(number) for _ in range(generator.choice(counts))]
        kind = self._channel.stream_unary if len(messages) != 1 else self._channel.unary_unary
        request = iter(messages) if len(messages) != 1 else messages[0]
        call = kind(method)(request, timeout=timeout, metadata=metadata(generator), compression=packing)
        if generator.random() < 0.2:
            for _ in range(generator.randrange(20)):
                await asyncio.sleep(0)
            call.cancel()
        await call

    async def _stream(self, number):
        """Send messages, of which some are damaged. Each gets its own response or refusal, in order."""
        generator = self._generator
        sizes = [generator.randrange(1, 90) for _ in range(generator.randrange(6))]
        call = self._channel.stream_stream(STREAM)(timeout=60)
        for at, size in enumerate(sizes):
            await call.write(self._text(b"a" * size, f"{number}.{at}"))
            if generator.random() < 0.1:
                await call.write(b"\xff" + generator.randbytes(9))
        if generator.random() < 0.3:
            call.cancel()
        else:
            await call.done_writing()
        answered = []
        async for blob in call:
            response = MESSAGES["inference.ModelStreamInferResponse"].FromString(blob)
            if not response.error_message:
                answered.append(response.infer_response)
        for at, (response, size) in enumerate(zip(answered, sizes, strict=True)):
            self._check_own(response, f"{number}.{at}", size)

    async def _frames(self, number):
        """Send damaged frames on a connection, and wait until the server closes it or the client has."""
        data = b"".join(frames(self._generator, self._message(number)))
        reader, writer = await asyncio.open_connection(*self._address.split(":"))
        with contextlib.suppress(OSError):
            writer.write(damaged(self._generator, data, most=128))  # test_servicer.py has a method that is no text
            if self._generator.random() < 0.5:
                writer.write_eof()
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def frame(kind, flags, stream, data):
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(data))[1:] + struct.pack(">BBI", kind, flags, stream) + data


def frames(generator, message):
    """Return the frames of a call, with others between them."""
    fields = {":method": "POST", ":scheme": "http", ":path": INFER, ":authority": "x", "te": "trailers"}
    fields |= {"content-type": "application/grpc", "grpc-encoding": generator.choice(["identity", "gzip", "no"])}
    block = b"".join(  # literal fields without an index (RFC 7541, section 6.2.2)
        b"\0%c%s%c%s" % (len(name), name.encode(), len(value), value.encode()) for name, value in fields.items()
    )
    prefix = struct.pack(">BI", generator.choice([0, 0, 1]), generator.choice([len(message)] * 3 + [2**31, 0]))
    call = [frame(1, 4, 1, block), frame(0, 1, 1, (prefix + message)[:16_000])]
    others = [
        frame(3, 0, 1, struct.pack(">I", 8)),  # RST_STREAM
        frame(4, 0, 0, struct.pack(">HI", generator.randrange(9), generator.randrange(2**32))),  # SETTINGS
        frame(6, 0, 0, bytes(generator.choice([8, 9]))),  # PING
        frame(7, 0, 0, bytes(8)),  # GOAWAY
        frame(8, 0, generator.choice([0, 1]), struct.pack(">I", generator.randrange(2**31))),  # WINDOW_UPDATE
        frame(9, 4, 1, block),  # CONTINUATION
        frame(1, 5, generator.choice([0, 2, 3]), block),  # HEADERS
        frame(1, 5, 1, block),  # trailers of the request
        frame(0, 8, 1, b"\xff"),  # DATA with wrong padding
        frame(generator.randrange(256), generator.randrange(256), generator.randrange(5), generator.randbytes(9)),
    ]
    for other in generator.sample(others, generator.choice([0, 1, 1, 2])):
        call.insert(generator.randrange(len(call) + 1), other)
    return [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, b""), *call]


@contextlib.asynccontextmanager
async def attacking(wire, address, **options):
    """Yield an attack on a server, whose client has two connections of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(2)]
    async with channels[0], channels[1]:
        yield Attack(wire, address, *channels, **options)
    gc.collect()  # the traceback of a refused call holds the call in a cycle, and the call its connection


def sockets(descriptors):
    """Return the number of sockets among a process's descriptors: ONNX Runtime opens files when it likes."""
    count = 0
    for name in os.listdir(descriptors):
        with contextlib.suppress(OSError):  # closed meanwhile
            count += os.readlink(f"{descriptors}/{name}").startswith("socket:")
    return count


async def settled(descriptors, most):
    """Wait until a process has few sockets: the last connections are just being closed."""

    async def settle():
        while sockets(descriptors) > most:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(settle(), GRPC_IDLE_S + 30)  # the server closes idle connections after this time


def test_hostile_calls_are_refused_and_leave_no_descriptor(wire, double, caplog):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(wire.serving(double()))
            attack = await stack.enter_async_context(attacking(wire, f"127.0.0.1:{client.server.port}"))
            await attack.run(30)
            before = sockets("/proc/self/fd")
            await attack.run(300)
            await settled("/proc/self/fd", before)
            return attack.codes

    codes = asyncio.run(scenario())
    assert codes <= ALLOWED | ENDED
    assert {"OK", "INVALID_ARGUMENT", "CANCELLED"} <= codes
    faults = [record.getMessage() for record in caplog.records if record.exc_info]
    assert [fault for fault in faults if not fault.startswith((*OF_LIBRARY, wire.ENDED_LOOP))] == []


@pytest.mark.stress
def test_ten_thousand_hostile_calls_of_a_real_service_leave_nothing(wire, served_demo):
    descriptors = f"/proc/{served_demo.process.pid}/fd"
    start, expected = sockets(descriptors), {}

    def check(response, size):
        """Check that the logits are those of a text of this size, but for the order of sums in a batch."""
        found = logits(response)
        assert found == pytest.approx(expected.setdefault(size, found), abs=TOLERANCE)

    async def rounds(count):
        """Return the codes of calls and the resident memory after them, once their connections are closed."""
        async with attacking(wire, served_demo.grpc, model="sentiment", check=check) as attack:
            await attack.run(count)
        await settled(descriptors, start)
        return attack.codes, served_demo.resident_mb()

    _, before = asyncio.run(rounds(1000))
    codes, after = asyncio.run(rounds(10_000))
    assert codes <= ALLOWED | ENDED
    assert after < GROWTH * before
    assert "Traceback" not in served_demo.stderr()
