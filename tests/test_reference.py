"""The generated documents are current: docs/reference/ and the drawing of the layers."""

import importlib.util

import pytest

from toolchain.errors import ToolchainError


def load(path):
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(root):
    return load(root / "docs/reference/make.py")


def test_the_pages_are_current(reference, root):
    made = reference.pages()
    kept = {path.name: path.read_text() for path in (root / "docs/reference").glob("*.md")}
    assert kept == made, "run `make reference`"


def test_every_error_class_has_its_exit_code_on_the_page(reference):
    page = reference.exit_codes()
    for error in ToolchainError.__subclasses__():
        assert f"| {error.exit_code} | `{error.__name__}` |" in page
    assert "| 130 |" in page


def test_every_variable_that_the_code_reads_is_on_the_page(reference):
    ours = {name for name, (reader, _) in reference.ENVIRONMENT.items() if reader.startswith("toolchain")}
    assert reference.variables_read() == ours


def test_a_key_without_a_text_is_refused(reference, tmp_path):
    file = tmp_path / "records.py"
    file.write_text('class Row(TypedDict):\n    """A row."""\n\n    n: int\n')
    with pytest.raises(ValueError, match="Row lacks a text for n"):
        reference.read(file)


def test_types_are_in_jsons_words(reference, tmp_path):
    file = tmp_path / "records.py"
    file.write_text(
        'Kind = Literal["a", "b"]\n\n\n'
        'class Inner(TypedDict):\n    """An inner one."""\n\n    x: float | None\n    """A number."""\n\n\n'
        'class Outer(TypedDict, total=False):\n    """An outer one."""\n\n'
        '    kind: Kind\n    """One | other."""\n    all: dict[str, list[Inner | None]]\n    """Many."""\n\n\n'
        "# Functional syntax because the key `from` is a Python keyword.\n"
        'Odd = TypedDict("Odd", {\n    # Where it starts.\n    "from": bool,\n})\nOdd.__doc__ = "An odd one."\n'
    )
    module = reference.read(file)
    page = reference.Pages([module]).page(module)
    assert page.index("## Outer") < page.index("## Inner")
    assert "| `x` | number or null | A number. |" in page
    assert "| `kind` | `a`, `b`; may be missing | One \\| other. |" in page
    assert "| `all` | object: string to list of ([Inner](#inner) or null); may be missing | Many. |" in page
    assert (
        "## Odd\n\nAn odd one.\n\n| key | type | meaning |\n| --- | --- | --- |\n| `from` | true or false | Where it"
        in page
    )


def test_the_drawing_of_the_layers_is_current(root):
    assert (root / "docs/img/tree.svg").read_text() == load(root / "docs/img/tree.py").drawn(), "run `make pictures`"


def test_the_architecture_names_every_part(root):
    page, tree = (root / "docs/architecture.md").read_text(), load(root / "docs/img/tree.py")
    packages = [name for names in tree.layers() for name in names if (root / "toolchain" / name).is_dir()]
    assert [name for name in packages if f"`{name}" not in page] == []
