"""Evaluation through a server gives the results of evaluation without one."""

import gzip
import json
import os
import shutil
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import RemoteTexts
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation.results import read_predictions
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime
from toolchain.runtimes.remote import Server
from toolchain.workflow import evaluate


def never(texts):
    pytest.fail("texts for a server are not tokenised here")


@pytest.fixture
def bundle(demo_bundle, tmp_path):
    return shutil.copytree(demo_bundle, tmp_path / "bundle")


def options(served, **changes):
    return {"backend": "service", "url": served["http"], "token_file": served["token_file"], "limit": 48} | changes


def test_accuracy_and_logits_are_those_of_the_same_graph_without_a_server(served, bundle):
    here = evaluate({"backend": "ort", "device": "cpu", "limit": 48}, bundle=bundle)
    there = evaluate(options(served), bundle=bundle)
    logits = [read_predictions(bundle / "results" / one["predictions"]["file"]).logits for one in (here, there)]
    np.testing.assert_allclose(*logits, atol=2e-5)
    assert there["metrics"] == here["metrics"]
    assert there["tokens"]["lengths"] == here["tokens"]["lengths"]
    assert there["tokens"]["slots"] > 0
    assert (there["device"], there["artefact"]) == ("remote", {"file": served["http"], "sha256": None})
    assert there["throughput_per_s"] > 0
    assert there["peak_memory_mb"] == {"host": None, "device": None}
    assert there["roofline"]["reason"] == "no_graph"


def test_more_rows_than_the_maximum_batch_are_sent_in_several_requests(served):
    server = Server(served["http"], 1, "", served["token_file"])
    sent = RemoteTexts([(f"film number {row}",) for row in range(150)], encode=never)
    with open_runtime("service", Server(server.url, 1, digest(served), server.token_file)) as infer:
        together = infer(sent.batch(np.arange(150)))
        alone = infer(sent.batch(np.array([149])))
    assert together.shape == (150, 2)
    np.testing.assert_allclose(together[149:], alone, atol=2e-5)


def digest(served):
    import tritonclient.http as triton

    client = triton.InferenceServerClient(served["http"].removeprefix("http://"))
    with open(served["token_file"]) as file:
        config = client.get_model_config("demo", headers={"Authorization": f"Bearer {file.read().strip()}"})
    return config["parameters"]["bundle_sha256"]["string_value"]


def test_a_server_of_another_bundle_is_refused(served, bundle):
    manifest = json.loads((bundle / "bundle.json").read_text())
    with (
        pytest.raises(InputError, match=f"serves the bundle {manifest['sha256'][:12]}, not 0123"),
        open_runtime("service", Server(served["http"], 1, "0123", served["token_file"])),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "texts", "message"),
    [
        ("/v2/models/nope", 1, "unknown model: 'nope'"),
        ("", 2, "no ready model takes TEXT and TEXT_PAIR and returns LOGITS"),
    ],
)
def test_a_missing_model_is_refused(served, path, texts, message):
    server = Server(served["http"] + path, texts, "", served["token_file"])
    with pytest.raises(InputError, match=message), open_runtime("service", server):
        pass


def test_a_wrong_or_missing_token_is_refused(served, tmp_path):
    (tmp_path / "wrong").write_text("guess")
    for file in (str(tmp_path / "wrong"), None):
        with (
            pytest.raises(InputError, match=rf"{served['http']}: .*\. Give the server's token with --token-file\.$"),
            open_runtime("service", Server(served["http"], 1, "", file)),
        ):
            pass
    server = Server(served["http"], 1, "", str(tmp_path / "absent"))
    with pytest.raises(InputError, match="--token-file"), open_runtime("service", server):
        pass


@pytest.mark.parametrize("held", [b"se\ncret", "sécret".encode(), b"se cret", b"\xff\xfesecret", b""])
def test_a_file_without_a_token_is_refused_without_showing_it(tmp_path, held):
    (tmp_path / "token").write_bytes(held)
    with pytest.raises(InputError, match=r"--token-file .*token: not one word of ASCII") as caught:
        _ = Server("http://host", 1, "", str(tmp_path / "token")).headers
    assert "cret" not in str(caught.value)


@contextmanager
def answering(status, body, length=None, encoding=None):
    """Yield the URL of a server that responds to every request with one body. It may claim another length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(length or len(body)))
            if encoding:
                self.send_header("Content-Encoding", encoding)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "does not speak the Open Inference Protocol"),
        (200, b"[1, 2]", "does not speak the Open Inference Protocol"),
        (200, b"7", "does not speak the Open Inference Protocol"),
        (200, b'{"input": 3}', "does not speak the Open Inference Protocol"),
        (200, b"\xff", "does not speak the Open Inference Protocol"),
        (502, b"<html>\nBad gateway", r"responds with 502\. See the server"),
        (500, b'{"error": null}', r"None\. See the server"),
        (401, b"", r"--token-file\.$"),
        (403, b"<html>", r"responds with 403\. Give the server's token with --token-file\.$"),
    ],
)
@pytest.mark.parametrize("path", ["", "/v2/models/demo"])
def test_a_response_of_another_protocol_is_refused(path, status, body, message):
    with (
        answering(status, body) as url,
        pytest.raises(InputError, match=f"^{url}{path}: .*{message}"),
        open_runtime("service", Server(url + path, 1, "")),
    ):
        pass


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (b" " * 3_000_000, {"length": 10**12}, r"a response exceeds 2 MiB\. Give another --url"),
        (gzip.compress(b" " * 3_000_000), {"encoding": "gzip"}, "does not speak the Open Inference Protocol"),
    ],
)
def test_a_response_without_end_is_refused(monkeypatch, body, options, message):
    monkeypatch.setattr("toolchain.runtimes.remote.MAX_RESPONSE_BYTES", 2 << 20)
    with (
        answering(200, body, **options) as url,
        pytest.raises(InputError, match=message),
        open_runtime("service", Server(f"{url}/v2/models/demo", 1, "")),
    ):
        pass


def test_a_silent_server_is_a_machine_error(monkeypatch):
    monkeypatch.setattr("toolchain.runtimes.remote.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/models/demo"
        with (
            pytest.raises(MachineError, match="its response takes longer than"),
            open_runtime("service", Server(url, 1, "")),
        ):
            pass


def test_a_response_that_is_cut_short_is_a_machine_error():
    with (
        answering(200, b"", length=9) as url,
        pytest.raises(MachineError, match="no server responds"),
        open_runtime("service", Server(f"{url}/v2/models/demo", 1, "")),
    ):
        pass


def test_a_token_file_that_never_ends_is_refused(tmp_path):
    os.mkfifo(tmp_path / "token")
    with pytest.raises(InputError, match="token: this is not a regular file"):
        _ = Server("http://host", 1, "", str(tmp_path / "token")).headers


TAKES_TEXT = {"input": [{"name": "TEXT"}], "output": [{"name": "LOGITS"}], "max_batch_size": 8}


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [{"name": "LOGITS", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]}],
        [{"name": "LOGITS", "datatype": "FP32", "shape": [3], "data": [0, 1, 2]}],
        [{"name": "LOGITS"}],
        3,
    ],
)
def test_logits_of_another_shape_are_refused(outputs):
    sent = RemoteTexts([("a",)] * 3, encode=never)
    with (
        answering(200, json.dumps({**TAKES_TEXT, "outputs": outputs}).encode()) as url,
        open_runtime("service", Server(f"{url}/v2/models/demo", 1, "")) as infer,
        pytest.raises(InputError, match="does not speak the Open Inference Protocol"),
    ):
        infer(sent.batch(np.arange(3)))


def test_a_missing_server_is_a_machine_error(bundle):
    with pytest.raises(MachineError, match=r"127\.0\.0\.1:9: no server responds"):
        evaluate({"backend": "triton", "url": "http://127.0.0.1:9", "limit": 8}, bundle=bundle)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host/other",
        "http://host/v2/models/a/b",
        "http://:8000",
        "http://127.0.0.1:99999",
        "http://host:abc",
        "http://[::1",
        f"http://{'a' * 70}",
    ],
)
def test_a_url_that_is_not_a_servers_is_refused(url):
    with pytest.raises(UsageError, match="--url"):
        _ = Server(url, 1, "").model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "service"}, "needs the address of a server"),
        ({"backend": "ort", "url": "http://host"}, "can only be used with a server"),
        ({"backend": "triton", "url": "http://host", "energy": True}, "on the server's machine"),
    ],
)
def test_options_that_exclude_each_other_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Recipe.make(changes)
