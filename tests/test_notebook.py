"""The example notebook runs as it stands, and stores no output."""

import os

import pytest

nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def notebook(root):
    return nbformat.read(root / "docs/guides/first-engine.ipynb", as_version=4)


def test_the_notebook_stores_no_output(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_the_notebook_runs_in_an_empty_folder(notebook, root, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.fspath(root))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path / "runtime"))
    resources = {"metadata": {"path": os.fspath(tmp_path)}}
    done = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    printed = "".join(
        output.text for cell in done.cells if cell.cell_type == "code" for output in cell.outputs if "text" in output
    )
    assert "at most 1 points: passes" in printed
    assert "'label': 'positive'" in printed
