"""The batcher with a clock and engines that the test controls; no threads and no sleeps."""

import asyncio
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.batching.batcher import Batcher, BatchResult
from toolchain.serve.batching.queue import bucket_ends
from toolchain.serve.counters import Counters
from toolchain.serve.limits import ENGINE_TIMEOUT_S, Limits
from toolchain.serve.protocol import Reason, RefusedError

LIMITS = Limits(max_batch=4, max_tokens=64, max_queue=12, timeout_s=10.0)
ENDS = (4, 16, 32)


def tokens(*rows):
    return Tokens({"input_ids": [list(row) for row in rows], "attention_mask": [[1] * len(row) for row in rows]}, {})


def logits(row):
    """Return the scripted engine's logits of a row; no two rows have the same."""
    return [row[0], len(row)]


class Engine:
    """An engine that keeps its batch until the test finishes it."""

    def __init__(self):
        self.jobs = []
        self.seen = []

    def begin(self, groups, on_done):
        assert not self.jobs, "the engine is busy"
        self.jobs.append((groups, on_done))
        self.seen.append([row for group in groups for row in group.columns["input_ids"]])

    def finish(self, *, failed=(), broken=False):
        groups, on_done = self.jobs.pop()
        rows = [group.columns["input_ids"] for group in groups]
        results = [
            None if index in failed else np.array([logits(row) for row in group], np.float32)
            for index, group in enumerate(rows)
        ]
        on_done(BatchResult(results, 2, 5, 1, broken))


class Setting:
    """A batcher, its engines, and a clock in nanoseconds."""

    def __init__(self, engines=1, limits=LIMITS, solo=False):
        self.now = 0
        self.solo = Engine() if solo else None
        self.engines = [Engine() for _ in range(engines)]
        self.counters = Counters()
        self.batcher = Batcher(
            list(self.engines),
            solo=self.solo,
            row=(2,),
            ends=ENDS,
            limits=limits,
            counters=self.counters,
            clock=lambda: self.now,
        )

    async def submit(self, *rows, timeout_us=0):
        task = asyncio.ensure_future(self.batcher.submit(tokens(*rows), timeout_us=timeout_us))
        await passes()
        return task


async def passes():
    """Let the event loop run every callback that is ready."""
    for _ in range(4):
        await asyncio.sleep(0)


def run(scenario, **choices):
    """Run a scenario on a new setting."""
    return asyncio.run(scenario(Setting(**choices)))


async def refusal(task):
    with pytest.raises(RefusedError) as caught:
        await task
    return caught.value.reason, str(caught.value)


def test_bucket_ends_double_up_to_the_longest_row():
    assert bucket_ends(128) == (16, 32, 64, 128)
    assert bucket_ends(100) == (16, 32, 64, 100)
    assert bucket_ends(12) == (12,)
    assert bucket_ends(60, per_octave=4) == (16, 20, 24, 28, 32, 40, 48, 56, 60)


def test_a_row_runs_at_once_and_later_rows_accumulate_meanwhile():
    async def scenario(here):
        engine = here.engines[0]
        tasks = [await here.submit([1, 2])]
        assert engine.seen == [[[1, 2]]]
        tasks += [await here.submit([value]) for value in (3, 4, 5)]
        assert len(engine.seen) == 1
        engine.finish()
        assert engine.seen[1] == [[3], [4], [5]]
        engine.finish()
        found = [(await task)[0].tolist() for task in tasks]
        assert found == [[[1, 2]], [[3, 1]], [[4, 1]], [[5, 1]]]
        assert here.counters.executions == 2

    run(scenario)


def test_requests_of_one_event_loop_pass_run_in_one_batch():
    async def scenario(here):
        tasks = [asyncio.ensure_future(here.batcher.submit(tokens([value]))) for value in (1, 2, 3)]
        await passes()
        assert here.engines[0].seen == [[[1], [2], [3]]]
        here.engines[0].finish()
        await asyncio.gather(*tasks)

    run(scenario)


def test_idle_engines_share_the_queued_rows():
    async def scenario(here):
        await here.submit([1])
        await here.submit([2])  # both are busy
        tasks = [await here.submit([value]) for value in (3, 4, 5)]
        here.engines[0].finish()
        assert here.engines[0].seen[1] == [[3], [4], [5]]  # one engine is idle and takes all
        here.engines[1].finish()
        here.engines[0].finish()
        tasks = [asyncio.ensure_future(here.batcher.submit(tokens([value]))) for value in (6, 7, 8)]
        await passes()
        assert sorted(len(engine.seen[-1]) for engine in here.engines) == [1, 2]
        for engine in here.engines:
            engine.finish()
        await asyncio.gather(*tasks)

    run(scenario, engines=2)


def test_a_single_request_runs_on_the_solo_engine():
    async def scenario(here):
        first = await here.submit([1])
        assert here.solo.seen == [[[1]]]
        second = await here.submit([2])  # not alone
        assert [engine.seen for engine in here.engines].count([[[2]]]) == 1
        for engine in (here.solo, *here.engines):
            if engine.jobs:
                engine.finish()
        both = [asyncio.ensure_future(here.batcher.submit(tokens([value]))) for value in (3, 4)]
        await passes()  # one row for each engine side by side
        assert len(here.solo.seen) == 1
        for engine in here.engines:
            engine.finish()
        await asyncio.gather(first, second, *both)

    run(scenario, engines=2, solo=True)


def test_a_broken_solo_engine_is_not_used_again():
    async def scenario(here):
        first = await here.submit([1])
        tasks = [await here.submit([value]) for value in (2, 3, 4)]  # two more engines are busy, and one row is queued
        for engine in here.engines:
            engine.finish()
        here.solo.finish(failed=[0], broken=True)
        assert (await refusal(first))[0] == Reason.INTERNAL
        for engine in here.engines:
            while engine.jobs:
                engine.finish()
        assert [(await task)[0].tolist() for task in tasks] == [[[2, 1]], [[3, 1]], [[4, 1]]]
        await here.submit([5])
        assert len(here.solo.seen) == 1
        assert not here.batcher.broken

    run(scenario, engines=2, solo=True)


def test_rows_of_a_request_run_in_their_buckets_and_return_in_order():
    async def scenario(here):
        rows = [[1] * 9, [2], [3] * 20, [4] * 8, [5]]
        task = await here.submit(*rows)
        engine = here.engines[0]
        while engine.jobs:
            engine.finish()
        await passes()
        assert sorted(map(len, engine.seen)) == [1, 2, 2]
        assert (await task)[0].tolist() == [logits(row) for row in rows]

    run(scenario)


def test_times_are_those_of_the_queue_and_of_the_batches():
    async def scenario(here):
        first, second = await here.submit([1]), await here.submit([2])
        here.now = 700
        here.engines[0].finish()
        here.engines[0].finish()
        assert [(await task)[1].queue_ns for task in (first, second)] == [0, 700]
        assert ((await second)[1].input_ns, (await second)[1].infer_ns) == (2, 5)

    run(scenario)


def test_rows_that_are_being_tokenised_count_for_the_queue_and_the_timeout():
    async def scenario(here):
        with here.batcher.reserve(LIMITS.max_queue):
            assert await refusal(await here.submit([1])) == (Reason.UNAVAILABLE, "Exceeds maximum queue size")
            with pytest.raises(RefusedError), here.batcher.reserve(1):
                pass
        here.now = 3_000_000
        late = here.batcher.submit(tokens([1]), timeout_us=2_000, arrived_ns=0)
        assert await refusal(asyncio.ensure_future(late)) == (Reason.UNAVAILABLE, "Request timeout expired")
        assert here.engines[0].seen == []

    run(scenario)


def test_a_full_queue_refuses_until_a_caller_leaves():
    async def scenario(here):
        tasks = [await here.submit([0]), await here.submit(*[[1]] * 11), await here.submit([2])]
        assert await refusal(await here.submit([3])) == (Reason.UNAVAILABLE, "Exceeds maximum queue size")
        assert here.counters.pending == 2
        tasks[1].cancel()
        await passes()
        assert here.counters.pending == 1
        tasks.append(await here.submit(*[[4]] * 11))
        here.engines[0].finish()
        assert here.engines[0].seen[1] == [[2], [4], [4], [4]]  # no row of the caller that left
        while here.engines[0].jobs:
            here.engines[0].finish()
        await asyncio.gather(tasks[2], tasks[3])

    run(scenario)


@pytest.mark.parametrize(("timeout_us", "late_ns"), [(3, 3000), (0, 10_000_000_000), (60_000_000, 10_000_000_000)])
def test_a_request_that_waits_too_long_is_refused_and_not_run(timeout_us, late_ns):
    async def scenario(here):
        await here.submit([1])
        task = await here.submit([2], timeout_us=timeout_us)
        here.now = late_ns - 1
        here.batcher.expire()
        await passes()
        assert not task.done()
        here.now = late_ns
        here.engines[0].finish()
        assert len(here.engines[0].seen) == 1
        assert await refusal(task) == (Reason.UNAVAILABLE, "Request timeout expired")

    run(scenario)


def test_requests_time_out_while_the_engine_hangs():
    async def scenario(here):
        here.batcher._clock = Counters().clock  # the real clock, because the timer is one of the event loop
        await here.submit([1])
        assert (await refusal(await here.submit([2], timeout_us=20_000)))[1] == "Request timeout expired"

    run(scenario)


def test_a_hanging_engine_is_given_up_and_after_the_last_one_every_request_is_refused():
    async def scenario(here):
        in_flight = await here.submit([1])
        here.now = round(LIMITS.timeout_s * 1e9)  # the longest wait of a request; an engine may run for longer
        here.batcher.expire()
        assert not in_flight.done()
        here.now = round((ENGINE_TIMEOUT_S - 1) * 1e9)
        waiting = await here.submit([2])
        here.now = round(ENGINE_TIMEOUT_S * 1e9)
        here.batcher.expire()
        gone = (Reason.UNAVAILABLE, "The model's engine has failed and is not available")
        assert (await refusal(in_flight), await refusal(waiting)) == (gone, gone)
        assert here.batcher.broken
        assert await refusal(await here.submit([3])) == gone
        assert here.counters.pending == 0

    run(scenario)


def test_a_given_up_engine_that_finishes_is_used_again():
    async def scenario(here):
        given_up = await here.submit([1])
        here.now = round(ENGINE_TIMEOUT_S * 1e9)
        here.batcher.expire()
        here.engines[0].finish()  # as if the whole machine had been paused
        assert (await refusal(given_up))[0] == Reason.UNAVAILABLE
        assert not here.batcher.broken
        answered = await here.submit([2])
        here.engines[0].finish(broken=True)
        assert (await answered)[0].tolist() == [logits([2])]
        assert here.batcher.broken

    run(scenario)


def test_a_failure_refuses_its_own_request_and_dequeues_its_other_rows():
    async def scenario(here):
        await here.submit([9])
        good, bad = await here.submit([1]), await here.submit([2], [3] * 9)
        here.engines[0].finish()
        here.engines[0].finish(failed=[1])
        assert await refusal(bad) == (Reason.INTERNAL, "The model failed on this request")
        while here.engines[0].jobs:
            here.engines[0].finish()
        assert (await good)[0].tolist() == [[1, 1]]
        assert here.counters.pending == 0

    run(scenario)


def test_logits_of_a_cancelled_request_are_dropped():
    async def scenario(here):
        tasks = [asyncio.ensure_future(here.batcher.submit(tokens([value]))) for value in (1, 2)]
        await passes()
        tasks[0].cancel()
        await passes()
        here.engines[0].finish()
        assert (await tasks[1])[0].tolist() == [[2, 1]]

    run(scenario)


def test_without_a_working_engine_every_request_is_refused():
    async def scenario(here):
        tasks = [await here.submit([value]) for value in (1, 2, 3)]
        for engine in here.engines:
            assert not here.batcher.broken
            engine.finish(failed=[0], broken=True)
        assert here.batcher.broken
        reasons = [(await refusal(task))[0] for task in (*tasks, await here.submit([4]))]
        assert reasons == [Reason.INTERNAL, Reason.INTERNAL, Reason.UNAVAILABLE, Reason.UNAVAILABLE]

    run(scenario, engines=2)


def test_closing_answers_accepted_requests_and_refuses_new_ones():
    async def scenario(here):
        rows = ([1], [2] * 9)  # in two buckets; no engine has them yet
        tasks = [asyncio.ensure_future(here.batcher.submit(tokens(row))) for row in rows]
        closing = asyncio.ensure_future(here.batcher.close())
        await passes()
        assert not closing.done()
        assert "stopping" in (await refusal(await here.submit([3])))[1]
        here.engines[0].finish()
        await passes()
        assert not closing.done()
        here.engines[0].finish()
        await asyncio.gather(closing, *tasks)

    run(scenario)


LENGTHS = st.lists(st.integers(1, 32), min_size=1, max_size=6)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), LENGTHS, st.sampled_from([0, 5, 50])),
        st.tuples(st.just("finish"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 6)),
        st.tuples(st.just("later"), st.integers(1, 40)),
    ),
    max_size=40,
)


class History:
    """A run of actions and the checks of its outcome."""

    def __init__(self, here):
        self.here, self.tasks, self.rows, self.late_ns = here, [], [], []
        self.dispatched, self.failed = set(), set()

    async def submit(self, lengths, timeout_us):
        number = len(self.tasks)
        rows = [[number * 10 + index] * length for index, length in enumerate(lengths)]
        self.rows.append(rows)
        self.late_ns.append(self.here.now + 1000 * (timeout_us or 10_000_000))
        self.tasks.append(await self.here.submit(*rows, timeout_us=timeout_us))

    async def finish(self, which, fail):
        engine = self.here.engines[which]
        if engine.jobs:
            if fail:
                self.failed.add(engine.jobs[0][0][0].columns["input_ids"][0][0] // 10)
            engine.finish(failed=[0] if fail else ())
            await passes()

    async def cancel(self, number):
        if number < len(self.tasks):
            self.tasks[number].cancel()
            await passes()

    async def later(self, microseconds):
        self.here.now += 1000 * microseconds

    def check_batches(self):
        for engine in self.here.engines:
            for batch in engine.seen:
                longest = max(map(len, batch))
                assert len(batch) <= LIMITS.max_batch
                assert len(batch) * longest <= LIMITS.max_tokens
                bucket = {next(end for end in ENDS if len(row) <= end) for row in batch}
                assert len(bucket) == 1
                assert [row[0] for row in batch] == sorted(row[0] for row in batch)  # in the order of arrival
                values = {row[0] for row in batch}
                assert not values & self.dispatched  # no row runs twice
                self.dispatched |= values

    def check_answer(self, number):
        task, rows = self.tasks[number], self.rows[number]
        assert task.done()
        if task.cancelled():
            return
        if task.exception() is None:
            assert task.result()[0].tolist() == [logits(row) for row in rows]
            return
        allowed = {
            "The model failed on this request": number in self.failed,
            "Request timeout expired": self.here.now >= self.late_ns[number],
            "Exceeds maximum queue size": not {row[0] for row in rows} & self.dispatched,
        }
        assert allowed[str(task.exception())]


@given(ACTIONS)
def test_every_request_has_one_result_and_it_is_its_own(actions):
    async def scenario(here):
        history = History(here)
        for name, *values in actions:
            await getattr(history, name)(*values)
        while any(engine.jobs for engine in here.engines):
            for engine in here.engines:
                with suppress(IndexError):
                    engine.finish()
            await passes()
        history.check_batches()
        for number in range(len(history.tasks)):
            history.check_answer(number)
        assert here.counters.pending == 0
        await here.batcher.close()

    run(scenario, engines=2)


@given(st.lists(st.integers(1, 32), min_size=1, max_size=12))
def test_the_next_batch_begins_with_the_row_that_has_waited_longest(lengths):
    async def scenario(here):
        tasks = [await here.submit([0])]
        tasks += [await here.submit([number + 1] * length) for number, length in enumerate(lengths)]
        waiting, engine = set(range(1, len(tasks))), here.engines[0]
        while waiting:
            engine.finish()
            batch = [row[0] for row in engine.seen[-1]]
            assert batch[0] == min(waiting)
            waiting -= set(batch)
        engine.finish()
        await asyncio.gather(*tasks)

    run(scenario)
