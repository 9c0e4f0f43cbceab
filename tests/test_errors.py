import pytest

from toolchain import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [("ToolchainError", 1), ("InputError", 1), ("UsageError", 2), ("GateError", 3), ("MachineError", 4)],
)
def test_every_error_has_the_exit_code_of_the_design(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.ToolchainError)
    assert error("words").exit_code == code
    assert str(error("words")) == "words"
