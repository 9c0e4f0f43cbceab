"""The thread that owns an engine, and what it does when the engine fails."""

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError, MachineError
from toolchain.serve.batching.worker import Worker, run

PROBE = {"input_ids": np.array([[1]]), "attention_mask": np.array([[1]])}
GUILTY, NOT_A_NUMBER, FATAL = 66, 77, 99


def tokens(*rows):
    columns = {"input_ids": [list(row) for row in rows], "attention_mask": [[1] * len(row) for row in rows]}
    return Tokens(columns, {"input_ids": 0, "attention_mask": 0})


class Engine:
    """Gives the sum of a row's ids; fails on GUILTY, and for good on FATAL."""

    def __init__(self):
        self.broken, self.batches = False, []

    def __call__(self, batch):
        ids = batch["input_ids"]
        self.batches.append(len(ids))
        self.broken = self.broken or FATAL in ids
        if self.broken or GUILTY in ids:
            raise RuntimeError("/home/someone/model.onnx: secret")
        found = (ids * batch["attention_mask"]).sum(axis=1, keepdims=True).astype(np.float32)
        return np.where(ids.max(axis=1, keepdims=True) == NOT_A_NUMBER, np.float32("nan"), found)


def found(done):
    return [None if logits is None else logits[:, 0].tolist() for logits in done.logits]


def test_groups_run_as_one_batch_and_are_told_apart():
    engine = Engine()
    done = run(engine, [tokens([1, 2]), tokens([3], [4, 5, 6])], probe=PROBE)
    assert (found(done), engine.batches, done.executions) == ([[3.0], [3.0, 15.0]], [3], 1)


@pytest.mark.parametrize("bad", [GUILTY, NOT_A_NUMBER])
def test_only_the_guilty_one_fails(bad):
    engine = Engine()
    done = run(engine, [tokens([1]), tokens([bad]), tokens([2], [3])], probe=PROBE)
    assert found(done) == [[1.0], None, [2.0, 3.0]]
    assert (done.executions, done.broken) == (2, False)


def test_an_engine_that_fails_on_what_it_ran_before_is_broken_and_is_not_tried_again():
    engine = Engine()
    done = run(engine, [tokens([1]), tokens([FATAL]), tokens([2]), tokens([3])], probe=PROBE)
    assert (found(done), done.broken) == ([None] * 4, True)
    assert engine.batches == [4, 1, 1]  # all, the first, the probe


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
        worker = Worker(opened, [PROBE], classes=1)
        await worker.opened()
        done = asyncio.get_running_loop().create_future()
        worker.begin([tokens([1])], done.set_result)
        assert found(await done) == [[1.0]]
        await worker.close()

    asyncio.run(scenario())
    assert len(seen) == 4
    assert len(set(seen) - {threading.get_ident()}) == 1


@pytest.mark.parametrize("where", ["open", "warm up"])
def test_an_engine_that_does_not_start_says_why(where):
    def fail(batch=None):
        raise MachineError("no GPU")

    @contextmanager
    def opened():
        yield fail() if where == "open" else fail

    async def scenario():
        worker = Worker(opened, [PROBE], classes=1)
        with pytest.raises(MachineError, match="no GPU"):
            await worker.opened()
        await worker.close()

    asyncio.run(scenario())


def test_an_engine_of_another_model_is_refused_before_anyone_asks():
    @contextmanager
    def opened():
        yield Engine()

    async def scenario():
        worker = Worker(opened, [PROBE], classes=2)
        with pytest.raises(InputError, match="has 2 labels"):
            await worker.opened()
        await worker.close()

    asyncio.run(scenario())
