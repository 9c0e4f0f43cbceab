"""`toolchain serve` as a user runs it: what it says, what it refuses, and that its end loses no request."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest


@pytest.fixture
def serve(typed_bundles, root, tmp_path):
    """Start the command on a bundle; keywords of Popen may be added."""
    started = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "toolchain", "serve", typed_bundles["fp32"], "--http-port", "0", "--grpc-port", "0",
             "--device", "cpu", *options],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Crowd:
    """Clients that ask until nobody listens; `wrong` is what was taken and not answered with 200."""

    def __init__(self, url, size=6):
        self.address, self.answered, self.wrong = url.removeprefix("http://"), 0, []
        self.threads = [threading.Thread(target=self._ask) for _ in range(size)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        client = http.client.HTTPConnection(self.address, timeout=60)
        while True:
            try:
                client.connect()
            except ConnectionRefusedError:
                return
            try:
                client.request("POST", "/classify", json.dumps({"text": "some words " * 20}))
                answer = client.getresponse()
                ok = answer.status == 200 and "label" in json.loads(answer.read())
            except OSError as error:
                ok = error
            self.answered += 1
            if ok is not True:
                self.wrong.append(ok)
            client.close()


def test_an_end_under_load_loses_no_request(serve):
    process = serve("--json", "--drain", "1")
    found = json.loads(process.stdout.readline())
    crowd = Crowd(found["http"])
    with contextlib.closing(http.client.HTTPConnection(crowd.address, timeout=60)) as kept:
        kept.request("GET", "/v2/health/ready")
        assert kept.getresponse().read() == b""
        process.send_signal(signal.SIGTERM)
        statuses = set()
        with contextlib.suppress(OSError):
            while 503 not in statuses:
                kept.request("GET", "/v2/health/ready")
                answer = kept.getresponse()
                answer.read()
                statuses.add(answer.status)
    for thread in crowd.threads:
        thread.join()
    assert process.wait(60) == 0
    assert 503 in statuses
    assert crowd.answered > len(crowd.threads)
    assert crowd.wrong == []


def test_what_it_says_when_it_starts(serve):
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
    process.send_signal(signal.SIGTERM)
    assert any("once again to end at once" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_host_of_the_network_without_a_token_is_warned_of(serve):
    process = serve("--host", "0.0.0.0", "--json", "-q")
    assert "whoever can reach this machine can use the model" in process.stderr.readline()


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
    [(["--tls-cert", "a"], 2, "--tls-cert and --tls-key: one without the other"),
     (["--token-file", "none"], 1, "none: No such file"), (["--http-port", "70000"], 2, "'70000' is not a port"),
     (["--max-batch", "0"], 2, "not a whole number above 0"), (["--drain", "-1"], 2, "not a number of seconds")],
)  # fmt: skip
def test_what_cannot_be_is_told_at_once(serve, options, code, message):
    process = serve(*options)
    assert message in process.communicate(timeout=60)[1]
    assert process.returncode == code
