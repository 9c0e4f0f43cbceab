"""The ceiling is the best of interleaved rounds, and counts operations as `work` does."""

import itertools

import pytest

from toolchain.errors import MachineError
from toolchain.profile.roofline import ceiling
from toolchain.profile.roofline.ceiling import Ceiling, best_of, measure


class Machine:
    """Actions with scripted durations, on a clock of their own."""

    def __init__(self, **times):
        self.now_s, self.log = 0.0, []
        self.actions = {name: self.action(name, itertools.cycle(turns)) for name, turns in times.items()}

    def action(self, name, turns):
        def run():
            self.log.append(name)
            self.now_s += next(turns)

        return run

    def best(self):
        return best_of(self.actions, clock=lambda: self.now_s)


def test_the_best_of_interleaved_rounds():
    machine = Machine(a=[0.5, 0.1, 0.2], b=[0.1, 0.1, 0.01])
    assert machine.best() == pytest.approx({"a": 0.1, "b": 0.01})
    assert machine.log == ["a", "b"] * 3  # 1.01 s are over the budget


def test_a_slow_action_is_not_repeated():
    machine = Machine(a=[3.0])
    assert machine.best() == {"a": 3.0}
    assert machine.log == ["a"]


def test_an_operation_is_a_multiplication_or_an_addition_and_a_copy_reads_and_writes(monkeypatch):
    monkeypatch.setattr(ceiling, "best_of", lambda actions: dict.fromkeys(actions, 0.5))
    found = measure.__wrapped__("cpu", frozenset({"fp32", "int8"}))
    assert found.flop_per_s == {"fp32": 2 * 1024**3 / 0.5, "int8": 2 * 1024**3 / 0.5}
    assert found.bytes_per_s == 2 * 2**27 / 0.5


def test_gemms_on_this_cpu_compute_the_right_values(monkeypatch):
    monkeypatch.setitem(ceiling.SIDES, "cpu", 32)
    actions = ceiling._on_cpu(frozenset({"fp32", "bf16", "fp16", "int8"}))
    found = {name: action() for name, action in actions.items() if name != "int8"}
    left, right = actions["fp32"].args
    assert (found["fp32"] - left.double() @ right.double()).abs().max() < 1e-4
    assert [str(found[name].dtype) for name in ("bf16", "fp16")] == ["torch.bfloat16", "torch.float16"]
    assert actions["int8"]()[0].dtype == "int32"
    assert found["copy"].nbytes == ceiling.COPIED_BYTES["cpu"]


def test_a_missing_gpu_is_an_error():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(MachineError, match=r"--device cuda:0: .+ cannot be measured: .+ Run `toolchain doctor`"):
        measure("cuda:0", frozenset({"fp16"}))


def test_the_setting_of_float32_gemms_is_restored():
    import torch

    setting, seen = torch.backends.cuda.matmul, []
    before = setting.fp32_precision
    ceiling._typed(lambda: seen.append(setting.fp32_precision), "tf32")()
    assert (seen, setting.fp32_precision) == (["tf32"], before)


@pytest.mark.gpu
def test_a_gpu_is_faster_in_float16():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    found = measure("cuda:0", frozenset({"fp32", "tf32", "fp16", "int8"}))
    assert found.flop_per_s["fp16"] > 2 * found.flop_per_s["fp32"]
    assert found.bytes_per_s > 1e11


def test_times_add_up_over_precisions():
    one = Ceiling({"int8": 1000.0, "fp32": 10.0}, bytes_per_s=50.0)
    assert one.compute_s({"int8": 500.0, "fp32": 20.0}) == 2.5
    assert one.memory_s(100) == 2.0


def test_tf32_falls_back_and_other_types_are_lacking():
    one = Ceiling({"fp32": 10.0}, bytes_per_s=50.0)
    assert one.compute_s({"tf32": 20.0}) == 2.0
    assert one.lacks(["tf32", "fp32", "bf16"]) == ["bf16"]
