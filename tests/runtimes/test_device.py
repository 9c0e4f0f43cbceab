import os
from pathlib import Path

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
def test_the_device_is_chosen(asked: str, cuda: bool, chosen: str) -> None:
    assert choose_device(asked, cuda=cuda) == chosen


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:0\n"])
@pytest.mark.parametrize("cuda", [True, False])
def test_an_unknown_name_is_a_usage_error(asked: str, cuda: bool) -> None:
    with pytest.raises(UsageError, match=rf"^--device {asked}: unknown\. Choose auto, cpu or cuda\[:N\]\.$"):
        choose_device(asked, cuda=cuda)


@pytest.mark.parametrize("asked", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_a_machine_error(asked: str) -> None:
    with pytest.raises(MachineError, match=rf"^--device {asked}: this backend can use no GPU here\. See `toolchain d"):
        choose_device(asked, cuda=False)


def test_threads_are_the_processors_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
    assert cpu_threads(Path("/nowhere")) == 3


V1 = "4:memory:/pod\n3:cpu,cpuacct:/pod\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "threads"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/pod/main\n", {"pod/main/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/only/the/host/has/it\n", {"cpu.max": "400000 100000\n"}, 4),
        (V1, {"cpu/pod/cpu.cfs_quota_us": "250000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        (V1, {"cpu/pod/cpu.cfs_quota_us": "-1\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 64),
        (V1, {}, 64),
    ],
)
def test_a_containers_quota_limits_the_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str], threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_threads(tmp_path) == threads
