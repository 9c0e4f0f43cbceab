"""The GPU kit: files that are cut into parts, carried in several commands, and joined again; steps of a stage."""

import ast
import importlib
import json
import lzma
import random
import sys

import pytest


@pytest.fixture
def kit(root, tmp_path, monkeypatch):
    """Return the modules pack and kit, with their folders below tmp_path."""
    monkeypatch.syspath_prepend(str(root / "benchmarks/gpu"))
    pack, kit = importlib.import_module("pack"), importlib.import_module("kit")
    monkeypatch.setattr(pack, "ROOT", tmp_path)
    monkeypatch.setattr(kit, "HOME", tmp_path / "home/kit")
    monkeypatch.setattr(kit, "OUT", tmp_path / "out")
    return pack, kit


def carry(kit, part, monkeypatch, tmp_path):
    """Take one part, as if only this one had been copied to the machine."""
    alone = tmp_path / f"carried-{part.name}"
    alone.mkdir()
    (tmp_path / part).rename(alone / part.name)
    monkeypatch.setattr(kit, "__file__", str(alone / part.name / "kit.py"))
    kit.take()


def test_files_survive_parts(kit, tmp_path, monkeypatch):
    pack, kit = kit
    large = random.Random(0).randbytes(3 * 2**20)
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small.xz").write_bytes(lzma.compress(b"text"))
    files = [("folder/large", tmp_path / "large"), ("small.xz", tmp_path / "small.xz")]
    parts = pack.write_parts("torch", files, part_bytes=2 * 2**20)
    assert [path.name for path, _ in parts] == ["torch-01", "torch-02"]
    assert (tmp_path / parts[0][0] / "kit.py").exists()
    carry(kit, parts[0][0], monkeypatch, tmp_path)
    with pytest.raises(SystemExit, match="Carry their part first"):
        kit.unpack("torch")
    carry(kit, parts[1][0], monkeypatch, tmp_path)
    folder = kit.unpack("torch")
    assert (folder / "folder/large").read_bytes() == large
    assert (folder / "small").read_text() == "text"


def test_a_step_that_fails_or_is_slow_does_not_stop_the_others(kit):
    _, kit = kit
    stage = kit.Stage("try", 60.0)
    python = [sys.executable, "-c"]
    assert stage.run("good", [*python, "print('fine')"], least=1, most=30, summary=str.strip) == "fine\n"
    assert stage.run("bad", [*python, "raise SystemExit('why')"], least=1, most=30) is None
    assert stage.run("slow", [*python, "import time; time.sleep(60)"], least=1, most=0.5) is None
    assert stage.run("late", [*python, ""], least=1000, most=1000) is None
    stage.finish()
    steps = json.loads((kit.OUT / "try.json").read_text())["steps"]
    assert [one["outcome"] for one in steps] == ["ok", "FAIL 1", "TOO SLOW", "no time"]
    assert [one["detail"] for one in steps[:2]] == ["fine", "why"]


def test_scripts_import_only_names_that_exist(root):
    """No test can run all of the kit, so at least its imports from the toolchain are checked."""
    missing = []
    for script in (root / "benchmarks").rglob("*.py"):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toolchain"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    submodule = root / node.module.replace(".", "/") / f"{alias.name}.py"
                    if not hasattr(module, alias.name) and not submodule.exists():
                        missing.append(f"{script.name}: {node.module}.{alias.name}")
    assert missing == []
