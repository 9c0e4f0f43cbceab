import pytest

from toolchain.errors import MachineError, UsageError
from toolchain.runtimes.device import choose_device


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
    with pytest.raises(
        MachineError, match=rf"^--device {asked}: this backend cannot use a GPU here\. Run `toolchain d"
    ):
        choose_device(asked, cuda=False)
