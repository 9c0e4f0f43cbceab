"""The thread that owns an engine, also when the engine fails."""

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError, MachineError
from toolchain.serve.batching.worker import Worker, run

PROBE = {"input_ids": np.array([[1]]), "attention_mask": np.array([[1]])}
FAILING, NOT_A_NUMBER, FATAL = 66, 77, 99


def tokens(*rows):
    columns = {"input_ids": [list(row) for row in rows], "attention_mask": [[1] * len(row) for row in rows]}
    return Tokens(columns, {"input_ids": 0, "attention_mask": 0})


class Engine:
    """Returns the sum of a row's ids; fails on FAILING, and on everything after FATAL."""

    def __init__(self):
        self.broken, self.batches = False, []

    def __call__(self, batch):
        ids = batch["input_ids"]
        self.batches.append(len(ids))
        self.broken = self.broken or FATAL in ids
        if self.broken or FAILING in ids:
            raise RuntimeError("/home/someone/model.onnx: secret")
        found = (ids * batch["attention_mask"]).sum(axis=1, keepdims=True).astype(np.float32)
        return np.where(ids.max(axis=1, keepdims=True) == NOT_A_NUMBER, np.float32("nan"), found)


def sums(result):
    return [None if logits is None else logits[:, 0].tolist() for logits in result.logits]


def test_groups_run_as_one_batch_and_get_their_own_logits():
    engine = Engine()
    result = run(engine, [tokens([1, 2]), tokens([3], [4, 5, 6])], probe=PROBE)
    assert (sums(result), engine.batches, result.executions) == ([[3.0], [3.0, 15.0]], [3], 1)


@pytest.mark.parametrize("bad", [FAILING, NOT_A_NUMBER])
def test_only_the_failing_request_fails(bad):
    engine = Engine()
    result = run(engine, [tokens([1]), tokens([bad]), tokens([2], [3])], probe=PROBE)
    assert sums(result) == [[1.0], None, [2.0, 3.0]]
    assert (result.executions, result.broken) == (2, False)


def test_an_engine_that_fails_on_the_probe_is_broken_and_not_used_again():
    engine = Engine()
    result = run(engine, [tokens([1]), tokens([FATAL]), tokens([2]), tokens([3])], probe=PROBE)
    assert (sums(result), result.broken) == ([None] * 4, True)
    assert engine.batches == [4, 1, 1]  # all groups, the first group, the probe


def test_an_engine_lives_in_one_thread():
    seen = []

    @contextmanager
    def opened():
        seen.append(threading.get_ident())

        def infer(batch):
            seen.append(threading.get_ident())
            return Engine()(batch)

        yield infer
        seen.append(threading.get_ident())

    async def scenario():
        worker = Worker(opened, [PROBE], row=(1,))
        await worker.opened
        done = asyncio.get_running_loop().create_future()
        worker.begin([tokens([1])], done.set_result)
        assert sums(await done) == [[1.0]]
        await worker.close()

    asyncio.run(scenario())
    assert len(seen) == 4
    assert len(set(seen) - {threading.get_ident()}) == 1


@pytest.mark.parametrize("where", ["open", "warm up"])
def test_an_engine_that_fails_to_open_raises_its_own_error(where):
    def fail(batch=None):
        raise MachineError("no GPU")

    @contextmanager
    def opened():
        yield fail() if where == "open" else fail

    async def scenario():
        worker = Worker(opened, [PROBE], row=(1,))
        with pytest.raises(MachineError, match="no GPU"):
            await worker.opened
        await worker.close()

    asyncio.run(scenario())


def test_an_engine_with_another_number_of_logits_is_refused_at_start():
    @contextmanager
    def opened():
        yield Engine()

    async def scenario():
        worker = Worker(opened, [PROBE], row=(2,))
        with pytest.raises(InputError, match="the last dimension of the model's logits is 2"):
            await worker.opened
        await worker.close()

    asyncio.run(scenario())
