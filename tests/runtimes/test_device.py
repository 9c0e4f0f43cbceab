import os

import pytest

from toolchain.errors import MachineError, UsageError
from toolchain.runtimes.device import choose_device, cpu_threads


@pytest.mark.parametrize(
    ("asked", "cuda", "chosen"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda:0"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda:0"),
        ("cuda:3", True, "cuda:3"),
    ],
)
def test_choice(asked: str, cuda: bool, chosen: str) -> None:
    assert choose_device(asked, cuda=cuda) == chosen


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:0\n"])
@pytest.mark.parametrize("cuda", [True, False])
def test_an_unknown_name_is_wrong_usage(asked: str, cuda: bool) -> None:
    with pytest.raises(UsageError, match=rf"^--device {asked}: unknown\. Choose auto, cpu or cuda\[:N\]\.$"):
        choose_device(asked, cuda=cuda)


@pytest.mark.parametrize("asked", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_the_machine_s_lack(asked: str) -> None:
    with pytest.raises(MachineError, match=rf"^--device {asked}: no GPU that this backend can use\. See `toolchain d"):
        choose_device(asked, cuda=False)


def test_threads_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
    assert cpu_threads() == 3
