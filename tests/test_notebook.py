"""The example notebook runs as it stands, and stores no output."""

import json
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
def test_the_notebook_runs_in_an_empty_folder(notebook, root, python, tmp_path, tmp_path_factory, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.fspath(root))
    kernels = tmp_path_factory.mktemp("jupyter")
    (kernels / "kernels/forked").mkdir(parents=True)
    argv = [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "Python", "language": "python"}
    (kernels / "kernels/forked/kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", os.fspath(kernels))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path / "runtime"))
    resources = {"metadata": {"path": os.fspath(tmp_path)}}
    done = NotebookClient(notebook, timeout=None, kernel_name="forked", resources=resources).execute()
    printed = "".join(
        output.text for cell in done.cells if cell.cell_type == "code" for output in cell.outputs if "text" in output
    )
    assert "at most 1 points: passes" in printed
    assert "'label': 'positive'" in printed
