"""`toolchain generate --backend openai` and `compare` of its records, on a scripted server."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from tests.generate.served.scripted import Server
from toolchain.cli import main


@pytest.fixture(scope="module")
def url():
    """A server in a thread, on the machine's own time."""
    loop, server = asyncio.new_event_loop(), Server(first_s=0, step_s=0)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        asyncio.run_coroutine_threadsafe(server.runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def measured(url, tmp_path, capsys):
    """Return a function that writes a record to a file."""
    (tmp_path / "in.csv").write_text("body\na good story\nthe sea\n")

    def measure(name, *options):
        words = ["generate", "--backend", "openai", "--url", url, "--model", "m"]
        words += ["--prompts", str(tmp_path / "in.csv"), "--text-column", "body", *options, "--json"]
        assert main(words) == 0
        (tmp_path / name).write_text(capsys.readouterr().out)
        return str(tmp_path / name)

    return measure


def test_a_record_and_two_of_them_side_by_side(url, measured, capsys):
    first, second = measured("a.json", "--concurrency", "1,2"), measured("b.json", "--concurrency", "2,4")
    assert main(["generate", "m", "--backend", "openai", "--url", url, "--prompt", "a"]) == 0
    assert "a | aé€😀" in capsys.readouterr().out
    assert main(["compare", first, second, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["comparisons"]
    speeds = {run["concurrency"]: run["tokens_per_s"] for run in json.loads(Path(first).read_text())["runs"]}
    after = {run["concurrency"]: run["tokens_per_s"] for run in json.loads(Path(second).read_text())["runs"]}
    (ratio,) = one["ratios"]
    assert (ratio["concurrency"], ratio["tokens_per_s"]) == (2, after[2] / speeds[2])
    assert (one["texts_equal"], one["prompts"], ratio["per_generated_token_j"]) == (2, 2, None)
    assert main(["compare", first, second]) == 0
    assert "2 of 2 replies are the same" in capsys.readouterr().out


def test_records_that_cannot_be_compared_are_one_line(measured, tmp_path, capsys):
    first = measured("a.json")
    (tmp_path / "other.json").write_text("{}")
    for other, said in (
        (str(tmp_path / "other.json"), "not a record of a server"),
        (measured("b.json", "--max-new-tokens", "3"), "Measure both with the same --max-new-tokens"),
        (measured("c.json", "--concurrency", "2"), "no number of streams in common"),
    ):
        assert main(["compare", first, other]) == 1
        assert said in capsys.readouterr().err
    silent = json.loads(Path(first).read_text())
    silent["runs"][0] |= {"tokens_per_s": 0.0, "generated_tokens": 0}
    (tmp_path / "silent.json").write_text(json.dumps(silent))
    assert main(["compare", str(tmp_path / "silent.json"), first]) == 1
    assert "its server generated no token" in capsys.readouterr().err
    assert main(["compare", first]) == 1
    assert "this is the only record of a server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["m"], 2, "Give --url http://HOST:PORT"),
        (["--url", "http://h"], 2, "MODEL: none is given"),
        (["m", "--model", "n", "--url", "http://h"], 2, "MODEL: m and n are given"),
        (["m", "--url", "h:1"], 2, "--url h:1: this is not the URL of a server"),
        (["m", "--url", "http://sk-secret@h"], 2, "contains a name, a key or a query"),
        (["m", "--url", "me:sk-secret@h:1"], 2, "contains a name, a key or a query"),
        (["m", "--url", "http://me:sk-secret@h:port"], 2, "contains a name, a key or a query"),
        (["m", "--url", "http://h", "--concurrency", "8,x"], 2, "--concurrency 8,x: 'x' is not a whole number"),
        (["m", "--url", "http://h", "--concurrency", "0"], 2, "of 1 or more"),
        (["m", "--url", "http://h", "--devices", "0"], 2, "--devices 0: this option works only with --energy"),
        (["m", "--url", "http://h", "--timeout", "0"], 2, "--timeout 0: this is not a time"),
        (
            ["m", "--url", "http://h", "--device", "cpu"],
            2,
            "--device: this option cannot be used with --backend openai",
        ),
        (["m", "--url", "http://h", "--token-file", "/none"], 1, "--token-file /none: No such file"),
        (["m", "--url", "http://127.0.0.1:1"], 4, "no server responds. Start the server"),
        (["m", "--url", "http://192.0.2.1:1", "--require-energy"], 4, "the server is on another machine"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, code, said, capsys):
    assert main(["generate", "--backend", "openai", "--prompt", "a", *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1


def test_options_of_a_server_need_one(capsys):
    assert main(["generate", "m", "--prompt", "a", "--concurrency", "2"]) == 2
    assert "--concurrency: this option works only with --backend openai" in capsys.readouterr().err


def test_the_key_of_the_environment_must_be_a_word_and_is_not_shown(url, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk secret")
    assert main(["generate", "m", "--backend", "openai", "--url", url, "--prompt", "a"]) == 1
    error = capsys.readouterr().err
    assert "OPENAI_API_KEY: the key is not one word" in error
    assert "secret" not in error
