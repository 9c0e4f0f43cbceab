from pathlib import Path

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


def raised(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """Return what `code` raises where `folder` is on the import path."""
    monkeypatch.syspath_prepend(str(folder))
    try:
        exec(code)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_import_error_names_the_folder_that_stands_in_the_place_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tritonium").mkdir()
    (tmp_path / "library.py").write_text(
        "try:\n    import tritonium\n    tritonium.language\n"
        "except Exception as error:\n    raise ModuleNotFoundError('Could not import module X.') from error\n"
    )
    for code in ("import library", "import tritonium.language", "from tritonium import language"):
        found = errors.why_not_imported(raised(code, tmp_path, monkeypatch))
        assert f"the folder {tmp_path / 'tritonium'} was imported instead of the Python package tritonium" in found


def test_an_import_error_names_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "another.py").write_text("import no_such_package\n")
    (tmp_path / "broken.py").write_text("raise ImportError('libx.so: no such file\\nmore')\n")
    found = [errors.why_not_imported(raised(f"import {name}", tmp_path, monkeypatch)) for name in ("another", "broken")]
    assert found == [
        "the Python package no_such_package is not installed. Install it.",
        "a library cannot be imported (ImportError: libx.so: no such file). Install this library again.",
    ]
