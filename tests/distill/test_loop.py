"""The training loop, with small modules of torch alone."""

import itertools
import json
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toolchain.base.files import write_bytes
from toolchain.checkpoint.tokenize import Tokens
from toolchain.distill import loop, state
from toolchain.distill.loop import Activations, Model, Settings, distil, factor
from toolchain.distill.losses import squared
from toolchain.errors import InputError, UsageError

WIDTH = 8


def tokens(rows=200, *, equal_length=False):
    generator = np.random.default_rng(0)
    ids = [generator.integers(1, 30, size).tolist() for size in generator.integers(2, 12, rows)]
    masks = [[1] * len(row) for row in ids]
    pads = {"input_ids": 0, "attention_mask": 0}
    return Tokens({"input_ids": ids, "attention_mask": masks}, pads, equal_length=equal_length)


def new_model(seed, *, fails_at=None):
    """An embedding, a hidden layer and logits of the mean; it raises at a call."""
    torch.manual_seed(seed)
    module = torch.nn.ModuleDict(
        {
            "table": torch.nn.Embedding(30, WIDTH),
            "layer": torch.nn.Linear(WIDTH, WIDTH),
            "head": torch.nn.Linear(WIDTH, 2),
        }
    )
    calls = itertools.count()

    def run(inputs):
        if next(calls) == fails_at:
            raise KeyboardInterrupt
        mask = inputs["attention_mask"][:, :, None].float()
        hidden = torch.tanh(module["layer"](module["table"](inputs["input_ids"])))
        return Activations(module["head"]((hidden * mask).sum(1) / mask.sum(1)), (hidden,))

    return Model(module, run)


def train(student, *, steps=60, seed=0, teacher=1, **given):
    settings = given.pop("settings", Settings(steps=steps, seed=seed, rows=8, rate=1e-2))
    done = distil(student, new_model(teacher), tokens(), settings, divergence=squared, key="a run", **given)
    return done, student.module.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def each_step(monkeypatch):
    """The state is written after every step."""
    monkeypatch.setattr(state, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(state, "SAVE_SHARE", float("inf"))


def test_the_student_comes_near_the_teacher_and_what_is_frozen_stays():
    student = new_model(0)
    student.module["table"].requires_grad_(False)
    before = student.module["table"].weight.clone()
    done, weights = train(student, steps=300)
    assert done.last_loss < done.first_loss / 2
    assert torch.equal(weights["table.weight"], before)
    assert (done.steps, done.rows) == (300, 300 * 8)  # 200 rows make 25 batches of 8 and none smaller


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (train(new_model(0), seed=seed)[1] for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("at", [1, 26, 59])
def test_an_interrupted_run_goes_on_to_the_same_weights(each_step, tmp_path, at):
    file, told = tmp_path / "run.state", []
    _, whole = train(new_model(0))
    with pytest.raises(KeyboardInterrupt):
        train(new_model(0, fails_at=at), state=file)
    done, weights = train(new_model(0), state=file, tell=told.append)
    assert same(weights, whole)
    assert told[0] == f"resuming an interrupted run after step {at}"
    assert (done.steps, done.rows) == (60, 480)
    assert [path.name for path in tmp_path.iterdir()] == ["run.state"]


def test_a_state_of_another_run_is_refused(each_step, tmp_path):
    file = tmp_path / "run.state"
    train(new_model(0), state=file)
    with pytest.raises(InputError, match=r"run.state: this is the state of an interrupted run with other options"):
        train(new_model(0), seed=1, state=file)


@pytest.mark.parametrize(
    "damage",
    ["cut", "empty", "text", "no weight", "other shape", "one number", "averages", "no progress", "odd progress"],
)
def test_a_damaged_state_is_one_line(each_step, tmp_path, damage):
    from safetensors.torch import save

    file = tmp_path / "run.state"
    train(new_model(0), state=file)
    data, tensors = file.read_bytes(), load_file(file)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    if damage == "no weight":
        del tensors["weight/layer.bias"]
    if damage == "other shape":
        tensors["weight/layer.bias"] = torch.zeros(3)
    if damage == "one number":
        tensors["weight/layer.bias"] = torch.zeros(1)
    if damage == "averages":
        tensors["adam/0/exp_avg"] = torch.zeros(1)
    if damage == "odd progress":
        header["progress"] = json.dumps({**json.loads(header["progress"]), "losses": "none"})
    made = {"cut": data[:-50], "empty": b"", "text": b"0123456789 of no use", "no progress": save(tensors)}
    write_bytes(file, made.get(damage, save(tensors, header)))
    with pytest.raises(InputError, match=r"run.state: this state of an interrupted run is damaged. Give --force"):
        train(new_model(0), state=file)


def test_minutes_give_the_weights_of_the_steps_that_they_come_to(monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: float(next(seconds))))
    done, weights = train(new_model(0), settings=Settings(minutes=1.5, rows=8, rate=1e-2))
    assert done.steps == 90  # steps of one second
    monkeypatch.undo()
    assert same(train(new_model(0), steps=90)[1], weights)


def test_the_learning_rate_rises_and_falls_to_near_zero():
    rates = [factor(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 32)
    assert set(rates[31:700]) == {1.0}
    assert rates[-1] == pytest.approx(1 / 300)
    assert all(factor(step, None) == rates[step] for step in range(700))


@pytest.mark.parametrize("equal_length", [False, True])
def test_each_pass_has_every_row_once_in_batches_of_near_lengths(equal_length):
    rows = tokens(1000, equal_length=equal_length)
    settings = Settings(steps=1, rows=8)
    epochs = [loop._epoch(rows, settings, epoch) for epoch in range(2)]
    for made in epochs:
        assert sorted(np.concatenate(made).tolist()) == list(range(1000))
        spread = [np.ptp(rows.lengths[batch]) for batch in made]
        assert np.mean(spread) <= (0 if equal_length else 1)
    assert [batch.tolist() for batch in epochs[0]] != [batch.tolist() for batch in epochs[1]]
    going_on = itertools.islice(loop._order(rows, settings, skip=len(epochs[0]) + 3), 5)
    assert [batch.tolist() for batch in going_on] == [batch.tolist() for batch in epochs[1][3:8]]


def test_a_loss_that_is_not_finite_ends_the_run():
    student = new_model(0)
    with torch.no_grad():
        student.module["head"].bias[0] = float("inf")
    with pytest.raises(InputError, match=r"the loss of step 1 is (inf|nan)"):
        train(student)


@pytest.mark.parametrize("given", [{}, {"steps": 3, "minutes": 1.0}, {"steps": 0}, {"minutes": float("nan")}])
def test_a_length_out_of_range_is_refused(given):
    with pytest.raises(UsageError, match=r"--(steps|minutes)"):
        Settings(**given)
