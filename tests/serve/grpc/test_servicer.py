"""The gRPC server over a real socket: methods, token, TLS, deadlines, streams, shutdown, and damaged messages.

test_conformance.py compares the responses with those of a real Triton.
"""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from tests.loop import Loop
from toolchain.errors import InputError
from toolchain.serve import aside
from toolchain.serve.grpc import servicer
from toolchain.serve.grpc.calls import CallHandler
from toolchain.serve.grpc.servicer import GrpcServer, Methods
from toolchain.serve.limits import GRPC_IDLE_S, MAX_CALLS, MAX_GRPC_CONNECTIONS
from toolchain.serve.places import Places
from toolchain.serve.proto import HEALTH, INFERENCE, MESSAGES
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.service import open_service
from toolchain.serve.tls import Tls


def typed(wire, datatype="BYTES", shape=(1, 1), name="TEXT", **contents):
    tensor = {"datatype": datatype, "shape": shape, "name": name, "contents": contents}
    return wire.text(tensor=tensor, raw_input_contents=[])


def best(wire, output, **count):
    """Return a ModelInferRequest for the best classes of an output."""
    return wire.text(outputs=[{"name": output, "parameters": {"classification": count}}])


REFUSED = {
    "shared memory": (
        lambda wire: wire.text(tensor={"parameters": {"shared_memory_region": {"string_param": "zz"}}}),
        "NOT_FOUND",
        "Unable to find shared memory region: 'zz'",
    ),
    "classes of text": (
        lambda wire: best(wire, "LABEL", int64_param=1),
        "INVALID_ARGUMENT",
        "class result not available for output 'LABEL' due to unsupported type 'BYTES'",
    ),
    "many outputs": (
        lambda wire: wire.text(outputs=[{}] * 17),
        "INVALID_ARGUMENT",
        "expected at most 16 outputs but got 17 outputs",
    ),
    "no classes": (
        lambda wire: best(wire, "LOGITS", int64_param=0),
        "INVALID_ARGUMENT",
        "invalid value for 'classification' parameter, expected above 0, got 0",
    ),
    "classes as text": (
        lambda wire: best(wire, "LOGITS", string_param="2"),
        "INVALID_ARGUMENT",
        "invalid value type for 'classification' parameter, expected int64_param",
    ),
    "typed, too few": (
        lambda wire: typed(wire, "INT64", (1, 2), int64_contents=[1]),
        "INVALID_ARGUMENT",
        "Expected 16, got 8",
    ),
    "typed, other field": (
        lambda wire: typed(wire, "INT64", (1, 1), int_contents=[1]),
        "INVALID_ARGUMENT",
        "Expected 8, got 0",
    ),
    "typed, too large": (
        lambda wire: typed(wire, "INT8", (1, 1), int_contents=[300]),
        "INVALID_ARGUMENT",
        "outside the range of INT8",
    ),
    "typed FP16": (
        lambda wire: typed(wire, "FP16", (1, 1), fp32_contents=[1]),
        "INVALID_ARGUMENT",
        "Expected 2, got 0",
    ),
    "many inputs": (
        lambda wire: wire.text(inputs=[{"name": f"{n}"} for n in range(9999)]),
        "INVALID_ARGUMENT",
        "expected at most 16 inputs but got 9999",
    ),
    "long name": (lambda wire: wire.text(tensor={"name": "Ä" * 100_000}), "INVALID_ARGUMENT", "ÄÄÄ"),
    "not a message": (
        lambda wire: b"\xff" * 9,
        "INVALID_ARGUMENT",
        "the request is not a valid message of type ModelInferRequest",
    ),
}


def test_invalid_requests_that_were_not_recorded_are_refused(wire, double):
    async def ask():
        async with wire.serving(double()) as client:
            return {case: await client.outcome("ModelInfer", make(wire)) for case, (make, *_) in REFUSED.items()}

    found = asyncio.run(ask())
    assert {case: status for case, (status, _) in found.items()} == {case: row[1] for case, row in REFUSED.items()}
    assert [case for case, (*_, words) in REFUSED.items() if words not in found[case][1]] == []


def test_best_classes_have_tritons_form(wire, double):
    async def ask():
        async with wire.serving(double()) as client:
            return await client.call("ModelInfer", best(wire, "LOGITS", int64_param=1))

    found = asyncio.run(ask())
    assert (found.outputs[0].datatype, list(found.outputs[0].shape)) == ("BYTES", [1, 1])
    assert list(found.raw_output_contents) == [struct.pack("<I", 10) + b"2.000000:0"]


def test_a_large_response_is_written_beside_the_event_loop(wire, double, monkeypatch):
    on_loop = []

    def write(response):
        on_loop.append(threading.current_thread() is threading.main_thread())
        return written(response)

    async def ask():
        async with wire.serving(double()) as client:
            small = await client.call("ModelInfer", wire.text())
            monkeypatch.setattr(aside, "LARGE_BODY_BYTES", 0)
            return small, await client.call("ModelInfer", wire.text())

    written = servicer.to_message
    monkeypatch.setattr(servicer, "to_message", write)
    small, large = asyncio.run(ask())
    assert (on_loop, small) == ([True, False], large)


def test_a_response_holds_the_requested_outputs(wire, double):
    async def ask():
        request = wire.text(
            tensor={"shape": [2, 1]}, raw_input_contents=[wire.HI * 2], outputs=[{"name": "LOGITS"}, {"name": "LABEL"}]
        )
        async with wire.serving(double()) as client:
            return await client.call("ModelInfer", request)

    found = asyncio.run(ask())
    assert (found.model_name, found.model_version, found.id) == ("demo", "1", "g1")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("LOGITS", "FP32", [2, 2]),
        ("LABEL", "BYTES", [2, 1]),
    ]
    logits, label = found.raw_output_contents
    assert np.frombuffer(logits, "<f4").tolist() == [2, -2, 2, -2]
    assert label == (struct.pack("<I", 4) + b"long") * 2


def test_metadata_configuration_statistics_and_index_are_those_of_the_service(wire, double):
    service = double()

    async def ask():
        service.counters.count_failure("OTHER", 5)
        async with wire.serving(service) as client:
            methods = ("ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
            fields = {"ModelMetadata": {"name": "demo"}, "ModelConfig": {"name": "demo", "version": "1"}}
            return [await client.call(method, fields.get(method, {})) for method in methods]

    server, model, config, statistics, index = asyncio.run(ask())
    assert (server.name, list(server.extensions)) == ("toolchain", ["binary_tensor_data", "statistics"])
    assert (model.platform, model.outputs[2].name, list(model.outputs[2].shape)) == ("toolchain", "LOGITS", [-1, 2])
    assert config.config.input[0].data_type == 13  # TYPE_STRING
    assert config.config.dynamic_batching.default_queue_policy.max_queue_size == 1024
    assert statistics.model_stats[0].inference_stats.fail.count == 1
    assert [(one.name, one.state) for one in index.models] == [("demo", "READY")]


def test_ready_and_health_follow_the_service(wire, double):
    service = double()

    async def ask():
        async with wire.serving(service) as client:
            live = (await client.call("ServerLive")).live
            ready = (await client.call("ServerReady")).ready, (await client.call("ModelReady", {"name": "demo"})).ready
            status = (await client.call("Check", service=HEALTH)).status
            index = len((await client.call("RepositoryIndex", {"ready": True})).models)
            return live, ready, status, index, await client.outcome("Check", {"service": "x"}, service=HEALTH)

    unknown = ("NOT_FOUND", "unknown service")
    assert asyncio.run(ask()) == (True, (True, True), 1, 1, unknown)
    service.ready = False
    assert asyncio.run(ask()) == (True, (False, False), 2, 0, unknown)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size"), ("UNAVAILABLE", "Exceeds maximum queue size")),
        (
            OSError(2, "No such file", "/secret/model.onnx"),
            ("INTERNAL", "the service failed on this call; the log of the service has the reason"),
        ),
    ],
)
def test_a_fault_has_its_status_and_hides_its_cause(wire, double, fault, outcome, caplog):
    service = double()
    service.fault = fault

    async def ask():
        async with wire.serving(service) as client:
            return await client.outcome("ModelInfer", wire.text())

    assert asyncio.run(ask()) == outcome
    assert ("/secret/model.onnx" in caplog.text) == isinstance(fault, OSError)  # the log shows the cause


def test_a_deadline_becomes_the_timeout_and_cancels_the_request(wire, double):
    service = double()

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            outcome = await client.outcome("ModelInfer", wire.text(), timeout=0.3)
            await asyncio.wait_for(service.cancelled.wait(), 20)
            return outcome

    assert asyncio.run(ask())[0] == "DEADLINE_EXCEEDED"
    assert 0 < service.seen[0].timeout_us <= 1_000_000


@pytest.mark.parametrize(("asked", "shortest", "longest"), [(7, 7, 7), (10**12, 10**6, 3 * 10**7)])
def test_the_shorter_of_deadline_and_timeout_counts(wire, double, asked, shortest, longest):
    service = double()

    async def ask():
        async with wire.serving(service) as client:
            await client.call("ModelInfer", wire.text(parameters={"timeout": {"int64_param": asked}}), timeout=20)

    asyncio.run(ask())
    assert shortest <= service.seen[0].timeout_us <= longest


def test_a_cancelled_call_cancels_the_request(wire, double):
    service = double()

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            call = asyncio.create_task(client.call("ModelInfer", wire.text(), timeout=None))
            while not service.seen:
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait_for(service.cancelled.wait(), 20)

    asyncio.run(ask())
    assert service.seen[0].timeout_us == 0


def test_a_stream_responds_in_order_and_continues_after_a_refusal(wire, double):
    service = double()
    requests = [wire.text(b"x" * size, id=f"{size}") for size in range(1, 200)]
    requests[100] = wire.text(model_name="nope", id="101")

    async def ask():
        async with wire.serving(service) as client:
            call = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            blobs = iter([request.SerializeToString() for request in requests])
            return [MESSAGES["inference.ModelStreamInferResponse"].FromString(blob) async for blob in call(blobs)]

    found = asyncio.run(ask())
    assert [one.infer_response.id for one in found] == [f"{size}" for size in range(1, 200)]
    assert {one.infer_response.id: one.error_message for one in found if one.error_message} == {
        "101": "Request for unknown model: 'nope' is not found"
    }


def test_a_cancelled_stream_cancels_its_requests(wire, double, caplog):
    service = double()

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            call = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
            for _ in range(3):
                await call.write(wire.text().SerializeToString())
            while len(service.seen) < 3:
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait_for(service.cancelled.wait(), 20)

    asyncio.run(ask())
    messages = [record.getMessage() for record in caplog.records]
    assert [one for one in messages if not one.startswith(wire.ENDED_LOOP)] == []  # a client that leaves is not a fault


def test_calls_in_flight_are_bounded(wire, double):
    service = double(max_queue=1, max_batch=1)
    most = 2 * 1 + MAX_CALLS

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            address, options = f"127.0.0.1:{client.server.port}", [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(2)]
            clients = [wire.Client(channel) for channel in channels]
            calls = [one.outcome("ModelInfer", wire.text()) for one in clients for _ in range(MAX_CALLS // 2 + 10)]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # the first that is refused
            service.gate.set()
            found = Counter(status for status, _ in await asyncio.gather(*tasks))
            for channel in channels:
                await channel.close()
            return found

    found = asyncio.run(ask())
    assert len(found) > 1
    assert set(found) <= {"OK", "RESOURCE_EXHAUSTED", "CANCELLED"}  # gRPC chooses how it refuses a call
    assert found["OK"] >= most


def test_too_large_a_message_is_refused_even_if_it_is_small_when_compressed(wire, double):
    large = wire.text(b"x" * 30_000_000)

    async def ask(compression):
        service = double(max_body_bytes=10_000)
        options = [("grpc.max_send_message_length", -1)]
        server = GrpcServer(service, "127.0.0.1", 0)
        await server.start()
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(address, options=options, compression=compression) as channel:
            client = wire.Client(channel)
            found = (
                await client.outcome("ModelInfer", wire.text(b"x" * 9_000)),
                await client.outcome("ModelInfer", large),
            )
        await server.stop(0)
        return [status for status, _ in found]

    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        assert asyncio.run(ask(compression)) == ["OK", "RESOURCE_EXHAUSTED"]


@pytest.mark.parametrize(
    ("metadata", "is_accepted"),
    [
        ((), False),
        ((("authorization", "Bearer wrong"),), False),
        ((("authorization", "s3cret"),), False),
        ((("authorization", "Bearer s3cret"),), True),
    ],
)
def test_every_method_but_health_checks_needs_the_token(wire, double, metadata, is_accepted):
    async def ask():
        async with wire.serving(double(), token="s3cret", metadata=metadata) as client:
            stream = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            try:
                streamed = len([one async for one in stream(iter([b""]), metadata=metadata)])
            except grpc.aio.AioRpcError as error:
                streamed = error.code().name
            names = ("ModelInfer", "ModelMetadata", "ServerMetadata", "ModelReady", "ModelStatistics", "ModelConfig")
            closed = {(await client.outcome(name, {}))[0] for name in names}
            opened = [await client.outcome(name) for name in ("ServerLive", "ServerReady")]
            return streamed, closed, [*opened, await client.outcome("Check", service=HEALTH)]

    streamed, closed, opened = asyncio.run(ask())
    assert opened == [("OK", "")] * 3
    assert (streamed, "UNAUTHENTICATED" in closed) == ((1, False) if is_accepted else ("UNAUTHENTICATED", True))
    assert is_accepted or closed == {"UNAUTHENTICATED"}


def test_with_tls_only_clients_that_use_it_can_connect(wire, double, certificate):
    async def ask():
        server = GrpcServer(double(), "127.0.0.1", 0, tls=certificate)
        await server.start()
        trusted = grpc.ssl_channel_credentials(certificate.cert.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{server.port}", trusted) as channel:
            secure = await wire.Client(channel).outcome("ModelInfer", wire.text())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            plain = await wire.Client(channel).outcome("ServerLive", timeout=5)
        await server.stop(0)
        return secure, plain[0]

    assert asyncio.run(ask()) == (("OK", ""), "UNAVAILABLE")


def test_a_port_in_use_and_a_wrong_certificate_are_one_message(wire, double, tmp_path):
    async def start(port=0, tls=None):
        return GrpcServer(double(), "127.0.0.1", port, tls=tls)

    pair = Tls(tmp_path / "certificate.pem", tmp_path / "key.pem")

    async def twice():
        async with wire.serving(double()) as client:
            await start(client.server.port)

    with pytest.raises(InputError, match="the port is not available"):
        asyncio.run(twice())
    with pytest.raises(InputError, match=r"certificate\.pem: No such file"):
        asyncio.run(start(tls=pair))
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("not a certificate")
    with pytest.raises(InputError, match=r"certificate\.pem: .*Give PEM files"):
        asyncio.run(start(tls=pair))


def test_stopping_lets_calls_in_flight_finish_and_refuses_others_until_then(wire, double, monkeypatch):
    """While a connection closes, a call may end with CANCELLED instead, after which clients do not try again."""
    monkeypatch.setattr(servicer, "REFUSE_S", 0)
    service = double()

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            call = asyncio.create_task(client.outcome("ModelInfer", wire.text()))
            while not service.seen:
                await asyncio.sleep(0)
            stopped = asyncio.create_task(client.server.stop(600))
            await asyncio.sleep(0)
            refused = {await client.outcome("ModelInfer", wire.text()) for _ in range(50)}
            service.gate.set()
            await stopped
            return await call, refused, (await client.outcome("ServerLive", timeout=5))[0]

    stopping = "UNAVAILABLE", "Server is stopping, no new requests are accepted"
    assert asyncio.run(ask()) == (("OK", ""), {stopping}, "UNAVAILABLE")


@pytest.mark.parametrize(("end_s", "expected_s"), [(60, 0.66), (0.3, 0.3), (0, 0)])
def test_stopping_waits_until_the_pauses_between_responses_are_over(end_s, expected_s):
    loop = Loop()
    start_s = loop.time()

    class Working:
        @property
        def working(self):
            return any(begin <= loop.time() - start_s < end for begin, end in [(0, 0.1), (0.25, 0.4), (0.45, 0.46)])

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(servicer.until_quiet(Working(), start_s + end_s))
    assert loop.time() - start_s == pytest.approx(expected_s, abs=servicer.POLL_S)


def test_stopping_answers_the_requests_of_an_open_stream_and_ends_it(wire, double):
    service = double()

    async def ask():
        service.gate.clear()
        async with wire.serving(service) as client:
            call = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
            for _ in range(3):
                await call.write(wire.text().SerializeToString())
            while len(service.seen) < 3:
                await asyncio.sleep(0)
            stopped = asyncio.create_task(client.server.stop(600))
            await asyncio.sleep(0)
            service.gate.set()
            answers = [await call.read() for _ in range(3)]
            await stopped
            return [bool(answer) for answer in answers], await call.code(), await call.details()

    found, code, words = asyncio.run(ask())
    assert found == [True] * 3
    assert (code.name, words.startswith("Server is stopping")) == ("UNAVAILABLE", True)


def mutations(wire, count):
    """Yield messages with up to three bytes changed, removed or inserted."""
    random = np.random.default_rng(11)
    wholes = [
        message.SerializeToString()
        for message in (
            wire.text(b"a sentence of some length"),
            wire.tokens(),
            typed(wire, bytes_contents=[b"hi"]),
            wire.text(parameters={"timeout": {"int64_param": 10**9}}, outputs=[{"name": "LABEL"}]),
        )
    ]
    for number in range(count):
        blob = bytearray(wholes[number % len(wholes)])
        for at in random.integers(0, len(blob), random.integers(0, 4)).tolist():
            kind, value = random.integers(0, [3, 256]).tolist()
            blob[at : at + (kind != 1)] = b"" if kind == 2 else bytes([value])
        yield bytes(blob)


class Context:
    """The context of a call without a deadline; abort raises."""

    def invocation_metadata(self):
        return ()

    def peer(self):
        return "ipv4:127.0.0.1:5000"

    def time_remaining(self):
        return None

    async def abort(self, code, words):
        raise RefusedError(code, words)


ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}


def test_ten_thousand_mutations_are_answered_or_refused_in_little_memory(wire, double):
    handler = CallHandler(None, Places(9)).handlers(INFERENCE, Methods(double()))
    infer = handler.service(SimpleNamespace(method=f"/{INFERENCE}/ModelInfer")).stream_unary

    async def only(blob):
        yield blob

    async def ask():
        found = Counter()
        for blob in mutations(wire, 10_000):
            try:
                await infer(only(blob), Context())
                found["OK"] += 1
            except RefusedError as refused:
                found[refused.reason.name] += 1
        return found

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = asyncio.run(ask())
    assert set(found) <= ALLOWED
    assert found["OK"] > 500 < found["INVALID_ARGUMENT"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32_000  # kB


def test_logits_over_grpc_equal_the_evaluators(wire, typed_bundles, sentences):
    bundle = typed_bundles["fp32"]
    texts = [line.rsplit(",", 1)[0] for line in (sentences / "validation.csv").read_text().splitlines()[1:]]
    with np.load(next((bundle / "results").glob("*.npz"))) as kept:
        logits = kept["logits"]

    async def ask():
        async with open_service(bundle, name="demo", device="cpu") as service, wire.serving(service) as client:
            requests = [wire.text(text.encode(), outputs=[{"name": "LOGITS"}]) for text in texts]
            return await asyncio.gather(*(client.call("ModelInfer", request) for request in requests))

    found = [np.frombuffer(answer.raw_output_contents[0], "<f4") for answer in asyncio.run(ask())]
    np.testing.assert_allclose(found, logits, atol=1e-5)


TRITON = Path(os.environ.get("TOOLCHAIN_TRITON", Path(__file__).parents[3] / ".venv/triton"))
CLIENT = """
import sys
import numpy as np
import tritonclient.grpc as t
from tritonclient.utils import InferenceServerException

client = t.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("demo", "1")
assert client.get_server_metadata().name == "toolchain"
assert client.get_model_metadata("demo").inputs[0].datatype == "BYTES"
assert client.get_model_config("demo", as_json=True)["config"]["max_batch_size"] == 64
assert client.get_inference_statistics("demo").model_stats[0].name == "demo"
assert [one.name for one in client.get_model_repository_index().models] == ["demo"]

def text(*values):
    tensor = t.InferInput("TEXT", [len(values), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value.encode()] for value in values], object))
    return [tensor]

def check(result, *values):
    assert result.as_numpy("LABEL").tolist() == [[b"long"]] * len(values)
    np.testing.assert_array_equal(result.as_numpy("LOGITS"), [[len(value), -len(value)] for value in values])

check(client.infer("demo", text("hello", "a longer one"), request_id="7", client_timeout=20), "hello", "a longer one")
check(client.infer("demo", text("hello"), compression_algorithm="gzip"), "hello")
ids = [t.InferInput(name, [1, 3], "INT64") for name in ("input_ids", "attention_mask")]
for tensor, values in zip(ids, ([5, 6, 7], [1, 1, 1])):
    tensor.set_data_from_numpy(np.array([values]))
assert client.infer("demo", ids, outputs=[t.InferRequestedOutput("LOGITS")]).as_numpy("LOGITS").tolist() == [[18, -18]]
try:
    client.infer("nope", text("hello"))
except InferenceServerException as error:
    assert "NOT_FOUND" in error.status() and error.message() == "Request for unknown model: 'nope' is not found"
else:
    raise AssertionError

import queue
answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for number in range(100):
    client.async_stream_infer("demo" if number != 50 else "nope", text("x" * (number + 1)), request_id=str(number))
for number in range(100):
    result, error = answers.get(timeout=20)
    assert (error is not None) == (number == 50), error
    if error is None:
        assert result.get_response().id == str(number)
        check(result, "x" * (number + 1))
client.stop_stream()
"""


@pytest.mark.parametrize("python", [Path(sys.executable), TRITON / "bin/python"], ids=["own", "triton"])
def test_tritons_client_works(wire, double, python):
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import tritonclient.grpc"], capture_output=True).returncode
    ):
        pytest.skip(f"tritonclient.grpc is not installed for {python}")

    async def ask():
        async with wire.serving(double()) as client:
            address = f"127.0.0.1:{client.server.port}"
            pipe = asyncio.subprocess.PIPE
            child = await asyncio.create_subprocess_exec(
                python, "-c", textwrap.dedent(CLIENT), address, stdout=pipe, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await asyncio.wait_for(child.communicate(), 100)
            return child.returncode, said.decode()

    assert asyncio.run(ask()) == (0, "")


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS


@pytest.fixture
def lowered(monkeypatch):
    """Return a function that lowers one of the limits that gRPC's library holds."""

    def lower(name, limit, known):
        assert (name, known) in servicer.OPTIONS
        monkeypatch.setattr(servicer, "OPTIONS", tuple((dict(servicer.OPTIONS) | {name: limit}).items()))

    return lower


def greeted(stack, port):
    """Return a connection that stays open until the stack closes, and whether the server has greeted it."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
    with contextlib.suppress(ConnectionError):
        client.sendall(PREFACE)
        return client, bool(client.recv(1))
    return client, False


def test_a_connection_without_a_call_is_closed(wire, double, lowered):
    lowered("grpc.max_connection_idle_ms", 100, GRPC_IDLE_S * 1000)

    def connect(port):
        with contextlib.ExitStack() as stack:
            client, found = greeted(stack, port)
            while client.recv(65536):
                pass
            return found

    async def ask():
        async with wire.serving(double(), channel=contextlib.nullcontext()) as client:
            assert await asyncio.to_thread(connect, client.server.port)

    asyncio.run(ask())


def test_connections_are_bounded_and_a_place_is_free_again(wire, double, lowered):
    lowered("grpc.max_allowed_incoming_connections", 2, MAX_GRPC_CONNECTIONS)

    def connect(port):
        with contextlib.ExitStack() as stack:
            found = [greeted(stack, port) for _ in range(3)]
            assert [one for _, one in found] == [True, True, False]
            found[0][0].close()
            while not greeted(stack, port)[1]:
                pass

    async def ask():
        async with wire.serving(double(), channel=contextlib.nullcontext()) as client:
            await asyncio.to_thread(connect, client.server.port)

    asyncio.run(ask())


def test_a_method_that_is_no_text_ends_the_server_for_a_second_at_most(wire, double):
    """The library decodes a method's name in its loop over calls, and the loop ends if that fails."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": b"/a\xc5/b", b":authority": b"x"}
    fields |= {b"te": b"trailers", b"content-type": b"application/grpc"}
    block = b"".join(b"\0%c%s%c%s" % (len(name), name, len(value), value) for name, value in fields.items())
    frames = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, len(block), 1, 5, 0, 0, 0, 1]) + block  # SETTINGS, HEADERS

    async def ask():
        async with wire.serving(double()) as client:
            first = client.server.server
            _, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
            while client.server.server is first:
                await asyncio.sleep(0.01)
            writer.close()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{client.server.port}") as channel:
                call = channel.unary_unary(f"/{HEALTH}/Check")
                return await call(b"", timeout=20, wait_for_ready=True)

    assert asyncio.run(ask())
