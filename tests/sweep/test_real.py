"""The real command: cells of the built-in model, and two tasks of GLUE."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from toolchain.bundle import open_bundle
from toolchain.cli import main
from toolchain.evaluation.target import choose_graph
from toolchain.sweep import sweep

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def forked_cells(monkeypatch, python):
    """The commands of a cell are forked from a process that has torch imported."""
    monkeypatch.setitem(sweep.__kwdefaults__, "program", (*python, "-m", "toolchain"))


@pytest.mark.slow
def test_two_backends_share_a_bundle_and_the_report_shows_both(tmp_path, monkeypatch, capsys, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    options = ["--set", "max_length=64", "--set", "limit=60", "--only", "int8*", "-o", "swept"]
    assert main(["sweep", str(ROOT / "eval/sweep.toml"), *options, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    done = [one for one in record["cells"] if one["state"] == "done"]
    assert [one["options"]["backend"] for one in done] == ["ort", "openvino"]
    assert len({one["bundle"] for one in done}) == 1
    assert {front["cost"] for front in record["fronts"]} == {"latency", "throughput", "size"}
    assert all(front["members"] and not front["unmeasured"] for front in record["fronts"])
    for one in done:
        bundle = open_bundle(Path("swept", one["bundle"]))
        file = bundle.file(choose_graph(bundle, "int8", "cpu", backend=one["options"]["backend"]))
        assert one["run"]["size_mb"] == pytest.approx(file.stat().st_size / 1e6)
    assert main(["report", "swept", "-o", "page.html"]) == 0
    assert "Sweep: sweep" in Path("page.html").read_text()
    assert main(["report", "swept", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.slow
def test_tasks_of_glue_with_checkpoints_by_a_pattern_have_no_score_until_all_are_there(
    tmp_path, monkeypatch, capsys, root, tiny_distilbert, sentences
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    shutil.copytree(tiny_distilbert, "models/bert-sst2")
    shutil.copytree(root / "eval", "eval", ignore=shutil.ignore_patterns("results"))
    shutil.copytree(sentences, "glue/sst2")
    (block,) = re.findall(r"```sh glue\n(.*?)```", (root / "docs/guides/study.md").read_text(), re.DOTALL)
    swept, reported = (shlex.split(line)[1:] for line in block.splitlines())
    assert main([*swept, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    states = [one["state"] for one in record["cells"]]
    assert (states.count("done"), states.count("impossible")) == (1, 8)
    assert "there is no such file or folder" in record["cells"][0]["reason"]
    (score,) = record["glue"]
    assert (score["score"], score["reason"], len(score["missing"])) == (None, "1 of 9 tasks measured", 8)
    assert main(reported) == 0
    assert "1 of 9 tasks measured" in Path("report.html").read_text()
