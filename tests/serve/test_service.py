"""The service of a real bundle: its logits equal the evaluator's, and every failure is a refusal."""

import asyncio
import logging
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from toolchain.data.rows import load_rows
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.serve import aside
from toolchain.serve.batching import engines
from toolchain.serve.limits import Limits
from toolchain.serve.metrics import render
from toolchain.serve.protocol import InferRequest, Reason, RefusedError, Tensor
from toolchain.serve.request_log import RequestLog
from toolchain.serve.service import open_service

ROWS = 64


def serve(bundle, scenario, **choices):
    """Run a scenario with the open service of a bundle."""

    async def main():
        async with open_service(bundle, **{"device": "cpu", **choices}) as service:
            return await scenario(service)

    return asyncio.run(main())


def texts(*values, name="TEXT"):
    column = np.empty((len(values), 1), object)
    column[:, 0] = [value.encode() for value in values]
    return Tensor(name, "BYTES", column)


def request(service, *inputs, **choices):
    return InferRequest(service.name, inputs, **choices)


def output(response, name):
    (array,) = [tensor.array for tensor in response.outputs if tensor.name == name]
    return array


def evaluated(bundle):
    """Return texts of validation rows and the evaluator's logits of them, row by row and in its own batches."""
    target = find_target({"backend": "ort", "device": "cpu"}, bundle)
    rows = load_rows(target.resolved.task, "validation").texts[:ROWS]
    tokens = target.resolved.encode(rows)
    with open_runtime("ort", target.model, **target.choices) as infer:
        alone = np.concatenate([infer(tokens.batch(np.array([row]))) for row in range(ROWS)])
        return rows, alone, run(infer, tokens).logits


def test_logits_equal_the_evaluators(demo_bundle):
    rows, alone, together = evaluated(demo_bundle)

    async def one_by_one(service):
        return [output(await service.infer(request(service, texts(row[0]))), "LOGITS")[0] for row in rows]

    async def at_once(service):
        found = await asyncio.gather(*(service.infer(request(service, texts(row[0]))) for row in rows))
        assert service.counters.executions < ROWS
        return [output(answer, "LOGITS")[0] for answer in found]

    async def in_one_request(service):
        return output(await service.infer(request(service, texts(*(row[0] for row in rows)))), "LOGITS")

    np.testing.assert_array_equal(serve(demo_bundle, one_by_one), alone)
    np.testing.assert_allclose(serve(demo_bundle, at_once), together, atol=1e-5)
    np.testing.assert_allclose(serve(demo_bundle, in_one_request), together, atol=1e-5)


def test_token_ids_and_texts_have_the_same_logits(demo_bundle):
    rows, alone, _ = evaluated(demo_bundle)
    batch = (
        find_target({"backend": "ort", "device": "cpu"}, demo_bundle)
        .resolved.encode(rows[:1])
        .batch(np.array([0]), length=99)
    )

    async def scenario(service):
        ids = [Tensor(name, "INT32", array) for name, array in batch.items()]
        return await service.infer(request(service, *ids, outputs=("LOGITS",), id="7"))

    answer = serve(demo_bundle, scenario, name="other")
    assert (answer.model, answer.version, answer.id, len(answer.outputs)) == ("other", "1", "7", 1)
    np.testing.assert_array_equal(answer.outputs[0].array[0], alone[0])


def test_classify_returns_labels(demo_bundle):
    rows = [("a fine film, warm and funny",), ("dull and far too long",)]

    async def scenario(service):
        many = await service.classify(rows * service.limits.max_batch, list)  # more than a batch takes
        return await service.classify(rows, list), many

    found, many = serve(demo_bundle, scenario)
    assert [row["label"] for row in found] == ["positive", "negative"]
    assert [row["label"] for row in many] == ["positive", "negative"] * (len(many) // 2)
    assert many[-1]["score"] == pytest.approx(found[-1]["score"], abs=1e-3)


def test_the_request_log_has_rows_tokens_and_times(demo_bundle, caplog):
    caplog.set_level(logging.INFO, "toolchain")
    rows = [("a fine film, warm and funny",), ("dull " * 3000,)]
    resolved = find_target({"backend": "ort", "device": "cpu"}, demo_bundle).resolved

    async def scenario(service):
        with RequestLog("text").request("POST", "/classify") as entry:
            await service.classify(rows, list)
        with RequestLog("text").request("POST", "/classify") as refused, pytest.raises(RefusedError):
            await service.classify([("x" * 20_000,)], list)
        return entry, refused

    entry, refused = serve(demo_bundle, scenario)
    assert (entry.rows, entry.tokens) == (2, int(resolved.encode(rows).lengths.sum()))
    assert entry.times.infer_ns > 0
    assert (refused.rows, refused.tokens, refused.times) == (None, None, None)


def test_a_pair_has_two_texts_and_a_regression_one_number(pair_bundle):
    async def scenario(service):
        assert service.texts_per_row == 2
        inputs = ["TEXT", "TEXT_PAIR", "input_ids", "attention_mask", "token_type_ids"]
        assert [one["name"] for one in service.description.model["inputs"]] == inputs
        answer = await service.infer(request(service, texts("warm room"), texts("cold meal", name="TEXT_PAIR")))
        label, score = output(answer, "LABEL")[0, 0].decode(), output(answer, "SCORE")[0, 0]
        assert np.float32(label) == score
        (row,) = await service.classify([("warm room", "cold meal")], list)
        assert row == {"label": None, "score": pytest.approx(score)}
        with pytest.raises(RefusedError, match=r"missing required input\(s\) \['TEXT_PAIR'\]"):
            await service.infer(request(service, texts("warm room")))

    serve(pair_bundle, scenario)


def test_metadata_and_configuration_match_inputs_and_outputs(demo_bundle):
    async def scenario(service):
        metadata, config = service.description.model, service.description.config
        assert metadata["inputs"][:2] == [
            {"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]},
        ]
        answer = await service.infer(request(service, texts("good", "bad")))
        stated = {one["name"]: (one["datatype"], one["shape"]) for one in metadata["outputs"]}
        assert stated == {one.name: (one.datatype, [-1, one.array.shape[1]]) for one in answer.outputs}
        # perf_analyzer needs every input in both, and sends those that are not optional
        assert [one["name"] for one in config["input"]] == [one["name"] for one in metadata["inputs"]]
        assert all(one["optional"] for one in config["input"])
        assert all(one["dims"] == stated[one["name"]][1][1:] for one in config["output"])
        assert (config["max_batch_size"], service.description.server["name"]) == (7, "toolchain")
        (model,) = service.statistics()["model_stats"]
        assert (model["inference_count"], model["execution_count"]) == (2, 1)
        assert service.counters.request_ns > service.counters.times.infer_ns > 0

    serve(demo_bundle, scenario, limits=Limits(max_batch=7), instances=1)


@contextmanager
def scripted(infer):
    yield infer


@pytest.fixture
def engine(monkeypatch):
    """Return a function that replaces the engine by a function."""

    def put(infer):
        monkeypatch.setattr(engines, "open_runtime", lambda *model, **choices: scripted(infer))

    return put


def zeros(batch):
    return np.zeros((len(batch["input_ids"]), 2), np.float32)


def test_a_failure_hides_its_cause_from_the_client_and_is_counted(demo_bundle, engine):
    def infer(batch):
        if batch["input_ids"].shape[1] == 3:  # one word; every batch of the warm-up is longer
            raise RuntimeError("/secret/model.onnx: Traceback")
        return zeros(batch)

    async def scenario(service):
        with pytest.raises(RefusedError) as caught:
            await service.infer(request(service, texts("good")))
        assert (caught.value.reason, str(caught.value)) == (Reason.INTERNAL, "The model failed on this request")
        await service.infer(request(service, texts("a good film")))
        assert service.counters.failures == {"OTHER": 0, "REJECTED": 0, "CANCELED": 0, "BACKEND": 1}
        assert service.ready

    engine(infer)
    serve(demo_bundle, scenario)


def test_a_service_whose_engine_is_broken_is_not_ready(demo_bundle, engine):
    broken = []

    def infer(batch):
        if batch["input_ids"].shape[1] == 3 or broken:
            broken.append(True)
            raise RuntimeError
        return zeros(batch)

    async def scenario(service):
        assert service.ready
        for reason in (Reason.INTERNAL, Reason.UNAVAILABLE):
            with pytest.raises(RefusedError) as caught:
                await service.infer(request(service, texts("good")))
            assert caught.value.reason == reason
        assert not service.ready

    engine(infer)
    serve(demo_bundle, scenario, instances=1)


def test_a_draining_service_answers_and_a_closed_one_refuses(demo_bundle):
    async def scenario(service):
        service.drain()
        assert not service.ready
        tasks = [asyncio.ensure_future(service.infer(request(service, texts("good")))) for _ in range(20)]
        await asyncio.sleep(0)
        await service.close()
        assert all(len(answer.outputs) == 3 for answer in await asyncio.gather(*tasks))
        with pytest.raises(RefusedError, match="stopping"):
            await service.infer(request(service, texts("good")))

    serve(demo_bundle, scenario)


def test_a_cancelled_request_is_counted(demo_bundle):
    async def scenario(service):
        task = asyncio.ensure_future(service.infer(request(service, texts("good"))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.counters.failures["CANCELED"] == 1

    serve(demo_bundle, scenario)


def test_a_long_text_is_truncated(demo_bundle):
    async def scenario(service):
        found = await service.infer(request(service, texts("good " * 3000)))
        short = await service.infer(request(service, texts("good " * 126)))
        np.testing.assert_array_equal(output(found, "LOGITS"), output(short, "LOGITS"))

    serve(demo_bundle, scenario)


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"instances": 0}, UsageError, "--instances 0"),
        ({"name": "../x"}, UsageError, "--name ../x: a model cannot have this name"),
        ({"backend": "torch"}, UsageError, "--backend torch: the service cannot run this backend"),
        ({"file": "model.int8.onnx"}, InputError, "has no model.int8.onnx"),
        ({"trust": "0" * 64}, InputError, "is not the trusted"),
    ],
)
def test_a_target_that_cannot_be_served_is_an_error_at_start(demo_bundle, choices, error, words):
    async def scenario(service):
        pass

    with pytest.raises(error, match=words):
        serve(demo_bundle, scenario, **choices)


def test_two_engines_share_the_requests(demo_bundle):
    async def scenario(service):
        found = await asyncio.gather(*(service.infer(request(service, texts("good " * n))) for n in range(1, 40)))
        assert all(np.isfinite(output(answer, "LOGITS")).all() for answer in found)

    serve(demo_bundle, scenario, instances=2, limits=Limits(max_batch=2))


def test_outputs_of_many_logits_are_made_beside_the_event_loop(demo_bundle, monkeypatch):
    def write(found):
        return threading.current_thread() is threading.main_thread()

    async def scenario(service):
        monkeypatch.setattr(aside, "LARGE_BODY_BYTES", 8 * len(service.head.labels))
        return [await service.classify([("good",)] * rows, write) for rows in (1, 3)]

    assert serve(demo_bundle, scenario) == [True, False]


def test_a_cached_row_is_answered_without_the_engine_also_when_the_queue_is_full(demo_bundle, caplog):
    caplog.set_level(logging.INFO, "toolchain")
    ids = find_target({}, demo_bundle).resolved.encode([("a fine film",)]).batch(np.array([0]))

    async def scenario(service):
        first = await service.infer(request(service, texts("a fine film")))
        (label,) = await service.classify([("A  FINE  film",)], list)  # the tokenizer makes it the same text
        assert label["label"] == output(first, "LABEL")[0, 0].decode()
        assert service.counters.executions == 1
        waiting = asyncio.ensure_future(service.classify([(f"film {n}",) for n in range(4)], list))
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="queue"):
            await service.infer(request(service, texts("a dull film")))
        again = await service.infer(request(service, *(Tensor(name, "INT32", one) for name, one in ids.items())))
        np.testing.assert_array_equal(output(again, "LOGITS"), output(first, "LOGITS"))
        await waiting
        model = service.statistics()["model_stats"][0]["inference_stats"]
        assert (model["cache_hit"]["count"], model["cache_miss"]["count"]) == (2, 6)
        assert b'nv_cache_num_hits_per_model{model="demo",version="1"} 2' in render(service)
        await service.close()
        with pytest.raises(RefusedError, match="stopping"):
            await service.infer(request(service, texts("a fine film")))

    serve(demo_bundle, scenario, name="demo", cache=100, limits=Limits(max_batch=4, max_queue=4), instances=1)
    assert "cache: up to 100 rows in at most 0.2 MB" in caplog.text


def test_a_text_that_is_longer_than_the_model_reads_is_flagged(demo_bundle):
    limit = find_target({"backend": "ort", "device": "cpu"}, demo_bundle).resolved.max_length - 2
    words = [". " * count for count in (limit, limit + 1, 3000)]

    async def scenario(service):
        found = await service.classify([(text,) for text in words], list)
        return found, await service.infer(request(service, texts(*words)))

    found, response = serve(demo_bundle, scenario)
    assert [one.get("truncated") for one in found] == [None, True, True]
    assert response.truncated_rows == 2
