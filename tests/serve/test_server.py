"""`toolchain serve` as a user runs it: its messages, its errors, and a shutdown that loses no request."""

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request

import grpc
import pytest

from toolchain.serve.proto import INFERENCE, MESSAGES


@pytest.fixture
def serve(typed_bundles, root, tmp_path, python):
    """Return a function that starts the command with options."""
    started = []

    def start(*options):
        process = subprocess.Popen(
            [
                *python,
                "-m",
                "toolchain",
                "serve",
                typed_bundles["fp32"],
                "--http-port",
                "0",
                "--grpc-port",
                "0",
                "--device",
                "cpu",
                *options,
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Crowd:
    """Clients that send requests until the port is closed. `wrong` has the outcome and the time of failed requests.

    `busy` is set when more requests were answered than there are clients.
    """

    def __init__(self, send, address, size=4):
        self.answered, self.wrong, self.busy = 0, [], threading.Event()
        self.threads = [threading.Thread(target=send, args=(address, self._note)) for _ in range(size)]
        for thread in self.threads:
            thread.start()

    def _note(self, outcome):
        self.answered += 1
        if self.answered > len(self.threads):
            self.busy.set()
        if outcome is not True:
            self.wrong.append((outcome, time.monotonic()))

    def join(self):
        for thread in self.threads:
            thread.join()


def classified(client):
    """Send one request; return whether the response has a label, and whether the connection stays open."""
    client.request("POST", "/classify", json.dumps({"text": "some words " * 20}))
    answer = client.getresponse()
    right = answer.status == 200 and "label" in json.loads(answer.read())
    return right, answer.headers["Connection"] != "close"


def send_over_http(address, note):
    """Send requests on one connection until the server announces that it closes it, then on the next."""
    client = http.client.HTTPConnection(address, timeout=60)
    while True:
        try:
            client.connect()
        except ConnectionRefusedError:
            return
        is_open = True
        while is_open:
            try:
                outcome, is_open = classified(client)
            except OSError as error:
                outcome, is_open = error, False
            note(outcome)
        client.close()


def send_over_a_new_connection_each(address, note):
    client = http.client.HTTPConnection(address, timeout=60)
    while True:
        try:
            client.connect()
        except ConnectionRefusedError:
            return
        try:
            note(classified(client)[0])
        except OSError as error:
            note(error)
        client.close()


def request_bytes():
    """Return a serialised ModelInferRequest."""
    blob = b"some words " * 20
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1]}
    request = MESSAGES["inference.ModelInferRequest"](
        model_name="sentiment", inputs=[tensor], raw_input_contents=[struct.pack("<I", len(blob)) + blob]
    )
    return request.SerializeToString()


def send_over_grpc(address, note):
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(f"/{INFERENCE}/ModelInfer")
        outcome = True
        while outcome is True:
            try:
                outcome = b"LABEL" in call(request_bytes(), timeout=60)
            except grpc.RpcError as error:
                outcome = error.code().name
            note(outcome)


def send_over_a_stream(address, note):
    """Send the next request as soon as the last one is answered."""
    requests = queue.SimpleQueue()
    requests.put(request_bytes())
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            for answer in channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer")(iter(requests.get, None)):
                note(b"LABEL" in answer)
                requests.put(request_bytes())
        except grpc.RpcError as error:
            note(error.code().name)
        requests.put(None)


DRAIN_S = 1


def test_a_shutdown_under_load_loses_no_request(processes, typed_bundles, python):
    with processes.running(typed_bundles["fp32"], "--drain", DRAIN_S, python=python) as served:
        over_http = [Crowd(send, served.address) for send in (send_over_a_new_connection_each, send_over_http)]
        over_grpc = [Crowd(send, served.grpc) for send in (send_over_grpc, send_over_a_stream)]
        assert all(crowd.busy.wait(60) for crowd in (*over_http, *over_grpc))
        with contextlib.closing(http.client.HTTPConnection(served.address, timeout=60)) as kept:
            kept.request("GET", "/v2/health/ready")
            assert kept.getresponse().read() == b""
            ended = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            statuses = set()
            with contextlib.suppress(OSError):
                while 503 not in statuses:
                    kept.request("GET", "/v2/health/ready")
                    answer = kept.getresponse()
                    answer.read()
                    statuses.add(answer.status)
        for crowd in (*over_http, *over_grpc):
            crowd.join()
        assert served.process.wait(60) == 0
        assert 503 in statuses
        assert [crowd.wrong for crowd in over_http] == [[], []]
        refused = [one for crowd in over_grpc for one in crowd.wrong]
        assert {outcome for outcome, _ in refused} == {
            "UNAVAILABLE"
        }  # the last call of each client, when the port is closed
        assert min(moment for _, moment in refused) > ended + DRAIN_S
        assert "Traceback" not in served.stderr()


def test_the_messages_at_start_give_working_addresses(serve):
    process = serve("--drain", "0", "--name", "stars")
    lines = [process.stderr.readline() for _ in range(5)]
    assert lines[0] == "stars is served. Ctrl-C ends it.\n"
    curl = lines[4].split("try it")[1].split()
    assert curl[0] == "curl"
    request = urllib.request.Request(curl[1], lines[4].split("'")[1].encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert set(json.loads(answer.read())) == {"label", "score", "scores"}
    assert "127.0.0.1:" in lines[3]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "Traceback" not in process.communicate()[1]


def test_a_second_signal_ends_it_at_once(serve):
    process = serve("--json", "--drain", "600")
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert any("a second signal stops the service at once" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "Traceback" not in process.communicate()[1]


def wait_until_the_port_is_closed(address):
    host, port = address.split(":")
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            socket.create_connection((host, int(port)), 60).close()


def test_a_second_signal_ends_requests_in_flight_at_once(processes, typed_bundles, python):
    """After the first signal alone, the service would wait half a minute for a client that sent half a request."""
    with processes.running(typed_bundles["fp32"], "--drain", 0, python=python) as served:
        host, port = served.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            served.process.send_signal(signal.SIGTERM)
            wait_until_the_port_is_closed(served.address)
            with pytest.raises(subprocess.TimeoutExpired):
                served.process.wait(3)  # longer than the time for requests that arrive late
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(60) == 0
        assert "Traceback" not in served.stderr()


def test_a_public_host_without_a_token_causes_a_warning(serve):
    process = serve("--host", "0.0.0.0", "--json", "-q")
    assert "everyone who can reach this machine can use the model" in process.stderr.readline()


def test_a_port_in_use_is_one_message(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve("--http-port", str(port))
        _, errors = process.communicate(timeout=60)
    message = f"error: 127.0.0.1:{port}: Address already in use. Choose another port with --http-port, or 0 for any"
    assert errors.startswith(message)
    assert (process.returncode, errors.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tls-cert", "a"], 2, "--tls-cert and --tls-key: one is given without the other"),
        (["--tls-cert", "none", "--tls-key", "none"], 1, "none: No such file"),
        (["--token-file", "none"], 1, "none: No such file"),
        (["--http-port", "70000"], 2, "'70000' is not a port"),
        (["--max-batch", "0"], 2, "not a whole number above 0"),
        (["--drain", "-1"], 2, "not a number of seconds"),
    ],
)
def test_wrong_options_are_one_message(serve, options, code, message):
    process = serve(*options)
    assert message in process.communicate(timeout=60)[1]
    assert process.returncode == code
