"""A served cascade: its logits are the evaluator's over both wires, and each stage is counted."""

import asyncio
import re
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from toolchain.bundle import open_bundle
from toolchain.evaluation.stages import find_stage, run_choices
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import passed_on
from toolchain.serve.metrics import render
from toolchain.serve.service import open_service
from toolchain.ship.service import ship_service

ROWS = 60


def evaluated(bundle):
    """Return texts of validation rows, the evaluator's logits, and which rows the first stage passes on."""
    target = find_target({"device": "cpu"}, bundle)
    texts = target.resolved.rows("validation").texts[:ROWS]
    tokens = target.resolved.encode(texts)
    with open_runtime(target.backend, target.model, **run_choices(target)) as infer:
        logits = run(infer, tokens).logits
    stage = find_stage(target)
    with stage.open({}) as first:
        return texts, logits, passed_on(run(first, tokens).logits, stage.threshold)


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_both_wires_give_the_evaluators_logits_and_the_rows_passed_on(processes, cascade_bundle, wire):
    texts, expected, rest = evaluated(cascade_bundle)
    module = getattr(tritonclient, wire)
    with processes.running(cascade_bundle) as server:
        client = module.InferenceServerClient(server.address if wire == "http" else server.grpc)

        def answer(rows):
            given = module.InferInput("TEXT", [len(rows), 1], "BYTES")
            given.set_data_from_numpy(np.array([[text] for (text,) in rows], object))
            found = client.infer("sentiment", [given])
            response = found.get_response()
            parameters = response["parameters"] if wire == "http" else response.parameters
            count = parameters["passed_on_rows"]
            return found.as_numpy("LOGITS"), count if wire == "http" else count.int64_param

        logits, count = answer(texts)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert 0 < count == rest.sum() < ROWS
        for row in (int(np.argmax(rest)), int(np.argmin(rest))):
            alone, count = answer(texts[row : row + 1])
            np.testing.assert_allclose(alone[0], expected[row], atol=1e-5)
            assert count == rest[row]
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as page:
            counted = re.findall(r'toolchain_cascade_rows{.*stage="(.*)"} (\d+)', page.read().decode())
        assert {stage: int(count) for stage, count in counted} == {
            "first": ROWS - rest.sum() + 1,
            "second": rest.sum() + 1,
        }
        client.close()


def test_a_first_stage_that_is_a_bundle_has_a_queue_of_its_own(cascade_of_bundles):
    both = cascade_of_bundles
    texts, expected, rest = evaluated(both)

    async def main():
        async with open_service(both, name="demo", device="cpu", cache=1000) as service:
            ran = await service.run(texts, lambda ran: ran)
            np.testing.assert_allclose(ran.logits, expected, atol=1e-5)
            assert not any("stage" in one for one in await service.classify(texts, list))  # from the cache
            assert service.counters.cache_hits == ROWS
            page = render(service).decode()
            assert f'toolchain_cascade_rows{{model="demo",version="1",stage="second"}} {rest.sum()}' in page
            other, known = await service.classify([("a text that is new",), texts[0]], list)
            assert "stage" in other
            assert "stage" not in known
        # Rows that the first stage has accepted are answered at a shutdown, also those that it passes on.
        async with open_service(both, name="demo", device="cpu") as service:
            named = [one["stage"] for one in await service.classify(texts, list)]
            assert named == ["second" if passed else "first" for passed in rest]
            before = service.counters.stage_rows["second"]
            unsure = [texts[row] for row in np.flatnonzero(rest)] * 5
            accepted = [asyncio.ensure_future(service.run([text], lambda ran: ran)) for text in unsure]
            await asyncio.sleep(0)
            await service.close()
            assert len(await asyncio.gather(*accepted)) == len(unsure)
            assert service.counters.stage_rows["second"] - before == len(unsure)

    asyncio.run(main())


def test_a_service_holds_both_stages(cascade_bundle, tmp_path):
    made = ship_service(cascade_bundle, tmp_path / "service", name="demo")
    inside = open_bundle(tmp_path / "service/bundle", trust=made["sha256"])
    assert inside.manifest == open_bundle(cascade_bundle).manifest
    assert find_stage(find_target({"device": "cpu"}, inside.path)) is not None
