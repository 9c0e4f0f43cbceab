"""Times of a served model are those of the script, its tokens the server's, its joules the scripted NVML's."""

import asyncio
import functools
import json
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.generate.served.scripted import Server, SharedLoop
from tests.loop import Loop
from toolchain.energy import calls
from toolchain.energy.protocol import Protocol
from toolchain.errors import InputError, MachineError
from toolchain.generate.served import measure, stream
from toolchain.generate.served.endpoint import Endpoint
from toolchain.generate.served.settings import ServedSettings
from toolchain.meters.energy import open_meter
from toolchain.meters.sources import BOARD

PROMPTS = ["one two three", "four five"]


@contextmanager
def serving(server, loop=Loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        url = runner.run(server.start())
        try:
            yield runner, url
        finally:
            runner.run(server.runner.cleanup())


def run(server, prompts=PROMPTS, *, path="", key=None, **settings):
    with serving(server) as (runner, url):
        return measure.run(Endpoint(url + path, "m", key), prompts, ServedSettings(**settings), runner=runner)


@pytest.mark.parametrize("path", ["", "/v1/completions"])
def test_times_are_exact_and_tokens_the_servers(path):
    server = Server(usage={"prompt_tokens_details": {"cached_tokens": 1}}, pieces=3)
    record = run(server, path=path, concurrency="1,3", rounds=2)
    assert [(one["concurrency"], one["requests"]) for one in record["runs"]] == [(1, 4), (3, 8)]
    for one in record["runs"]:
        assert one["first_token_ms_p50"] == pytest.approx(500)
        assert one["first_token_ms_p99"] == pytest.approx(500)
        assert one["inter_token_ms_p50"] == pytest.approx(100)
        assert one["inter_token_ms_p99"] == pytest.approx(100)
        assert one["ms_per_token_p50"] == pytest.approx(100)
        assert one["parts"] == one["generated_tokens"] == 4 * one["requests"]
        assert one["cached_prompt_tokens"] == one["requests"]
        assert one["energy_reason"] == "not_requested"
    first, second = record["runs"]
    assert first["seconds"] == pytest.approx(4 * 0.8)
    assert second["seconds"] == pytest.approx(3 * 0.8)  # 8 replies in 3 streams
    assert first["tokens_per_s"] == pytest.approx(4 / 0.8)
    timed = server.sent[1:5]  # behind a request of the warm-up
    assert (first["prompt_tokens"], first["generated_tokens"]) == tuple(map(sum, zip(*timed, strict=True)))
    assert [text["text"] for text in record["texts"]] == ["aé€😀"] * 2
    assert {seen[0] for seen in server.seen} == {path or "/v1/chat/completions"}
    assert server.seen[1][2]["stream_options"] == {"include_usage": True}


def test_several_tokens_of_a_part_and_a_reply_without_text():
    two = run(Server(words=["ab", "cd"], usage={"completion_tokens": 5}), rounds=1)["runs"][0]
    assert (two["parts"], two["generated_tokens"]) == (4, 10)
    assert two["inter_token_ms_p50"] == pytest.approx(100)
    assert two["ms_per_token_p50"] == pytest.approx(25)
    none = run(Server(words=[""], usage={"completion_tokens": 1}), rounds=1)["runs"][0]
    assert none["first_token_ms_p50"] == pytest.approx(500)
    assert none["inter_token_ms_p50"] is none["ms_per_token_p50"] is none["j_per_prompt_token"] is None


@pytest.mark.parametrize(("end_s", "count"), [(0.01, 1), (100, 4)])
def test_a_connection_is_used_again_if_the_reply_ends_soon_after_its_last_event(end_s, count):
    server = Server(end_s=end_s)
    record = run(server, rounds=1, prompts=PROMPTS[:1] * 3)["runs"][0]
    assert len(server.connections) == count
    assert record["first_token_ms_p99"] == pytest.approx(500)


def test_reasoning_that_is_sent_by_two_names_is_one_text():
    reading = stream._Reading(Endpoint("http://h", "m"), lambda: 1.0, lambda: None)
    for part in (
        {"reasoning": "a", "reasoning_content": "a"},
        {"reasoning": "b", "content": ""},
        {"content": "c"},
        None,
    ):
        reading.add(json.dumps({"choices": [{"delta": part}]}).encode())
    assert reading.texts == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("dies", MachineError, "closed the connection in the middle of a reply"),
        ("stalls", MachineError, "has sent nothing for 7 s"),
        ("half", InputError, "ends within a character"),
        ("ends", MachineError, "ends before its reply does"),
        ("not json", InputError, "an event that is not JSON"),
        ("error", InputError, "ends the reply with an error of its own"),
        ("no usage", InputError, "`usage` is missing from the stream"),
        ("200", InputError, "the reply is not a stream"),
        ("401", InputError, "status 401. Set OPENAI_API_KEY"),
        ("404", InputError, "status 404. Give --model as the server names it"),
        ("429", InputError, "status 429. Give a smaller --concurrency"),
        ("500", InputError, "status 500. Look at the server's log"),
    ],
)
def test_a_fault_of_the_server_is_one_line(fault, kind, said):
    with pytest.raises(kind) as raised:
        run(Server(fault=fault), timeout=7.0, concurrency="2", key="sk-secret")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_server_that_is_not_there():
    with asyncio.Runner() as runner, pytest.raises(MachineError, match="no server responds"):
        measure.run(Endpoint("http://127.0.0.1:1", "m"), PROMPTS, ServedSettings(), runner=runner)


def test_the_key_is_sent_and_stands_in_no_record():
    server = Server()
    record = run(server, key="sk-secret", rounds=1)
    assert server.seen[0][1] == "Bearer sk-secret"
    assert "secret" not in str(record)
    assert "secret" not in repr(Endpoint("http://h", "m", "sk-secret"))


def test_no_prompt_and_an_empty_one():
    with pytest.raises(InputError, match="no prompt"):
        run(Server(), [])
    with pytest.raises(InputError, match="prompt 2 is empty"):
        run(Server(), ["a", " "])


def test_a_server_that_fails_while_the_energy_is_measured():
    server = Server()

    def energy(work):
        server.fault = "500"
        for _ in range(10):
            work()
        pytest.fail("it went on")

    with serving(server) as (runner, url):
        settings = ServedSettings(rounds=1, concurrency="2")
        with pytest.raises(InputError, match="status 500"):
            measure.run(Endpoint(url, "m"), PROMPTS, settings, runner=runner, energy=energy)


TWO = (
    "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 50000\ndevice 1 6 GPU-22222222-bbbb Tesla T4\npower 1 0 20000\n"
    "update_ms 1 70\ndevice 2 6 GPU-33333333-cccc Tesla T4\npower 2 0 90000\n"
)


def test_joules_of_two_gpus_are_within_half_a_percent_of_the_truth(nvml):
    """A request takes 0.2 s for one token and 1.1 s for ten, at 70 W, and three run at once."""
    nvml.load(TWO)
    loop = functools.partial(SharedLoop, nvml)
    with serving(Server(words=["a"] * 10, first_s=0.2), loop) as (runner, url):
        shared = runner.get_loop()
        calls.trial = shared.measuring(calls.trial)
        settings = ServedSettings(rounds=1, concurrency="3", devices="0,1", max_new_tokens=10)
        with open_meter(settings.device, clock=nvml.now, sleep=shared.sleep, powercap=Path("/nonexistent")) as meter:
            assert len(meter.inventory.gpus) == 2
            joules = calls.joules_per_call(meter, Protocol(window_s=20), device=settings.device, components=(BOARD,))
            record = measure.run(Endpoint(url, "m"), PROMPTS, settings, runner=runner, energy=joules)
    (one,) = record["runs"]
    first_j, whole_j = 70 * 0.2 / 3, 70 * 1.1 / 3
    assert one["j_per_prompt_token"] == pytest.approx(first_j / 2.5, rel=0.005)
    assert one["per_generated_token_j"] == pytest.approx(whole_j / 10, rel=0.005)
    assert one["j_per_generated_token"] == pytest.approx((whole_j - first_j) / 9, rel=0.005)


@pytest.mark.slow
def test_tokens_of_1000_streams_are_the_servers_own_count():
    words = [f"w{number} " for number in range(50)]
    server = Server(words=words, pieces=2)
    prompts = [" ".join(words[: 1 + number % 37]) for number in range(1000)]
    (one,) = run(server, prompts, concurrency="32", rounds=1)["runs"]
    assert one["requests"] == 1000
    timed = server.sent[-1000:]
    assert (one["prompt_tokens"], one["generated_tokens"]) == tuple(map(sum, zip(*timed, strict=True)))
    assert one["parts"] == one["generated_tokens"] == 50_000
    assert one["inter_token_ms_p99"] == pytest.approx(100)


def test_a_reply_without_an_end_is_refused(monkeypatch):
    async def blocks():
        while True:
            yield b": still here\n" * 10

    async def read():
        return [one async for one in stream._events(blocks(), Endpoint("http://a", "m"))]

    monkeypatch.setattr(stream, "MAX_REPLY_BYTES", 1 << 12)
    with pytest.raises(InputError, match="a reply exceeds"):
        asyncio.run(read())


def test_hostile_counts_are_none_and_half_a_character_is_replaced():
    reading = stream._Reading(Endpoint("http://a", "m"), lambda: 1.0, lambda: None)
    reading.add(b'{"choices": [{"delta": {"content": "a\\ud800"}, "finish_reason": ["x"]}]}')
    reading.add(b'{"choices": [{"delta": {}, "finish_reason": "\\udfff"}]}')
    assert (reading.texts, reading.ended) == (["a?"], "?")
    for count in ("1" * 4000, "-1", "true", "1e3"):
        reading.add(b'{"usage": {"prompt_tokens": 1, "completion_tokens": %s}}' % count.encode())
        with pytest.raises(InputError, match="does not count its tokens"):
            reading.reply(0.0)
