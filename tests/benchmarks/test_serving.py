"""A very short comparison of servers: every figure is there, and ratios agree with the figures."""

import json
import shutil
import subprocess

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_short_comparison(root, tmp_path, python, demo_bundle):
    shutil.copytree(demo_bundle, tmp_path / "embedded/bundle")  # so that it is exported once
    done = subprocess.run(
        [
            *python,
            root / "benchmarks/serving/run.py",
            "--only",
            "embedded",
            "--rounds",
            "1",
            "--seconds",
            "1",
            "--keep",
            tmp_path,
            "-o",
            tmp_path / "found.json",
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert kept["rounds"] == 1
    assert kept["environment"]["onnxruntime"]
    about = kept["servers"]["embedded"]
    found = about["figures"]
    for clients in (1, 8, 32):
        ours = found[f"toolchain serve, {clients} clients, per_s"]
        other = found[f"engine alone, {clients} clients, per_s"]
        assert found[f"toolchain serve / engine alone, {clients} clients"] == pytest.approx(ours / other)
        assert found[f"toolchain serve, {clients} clients, lost"] == 0
    for server in ("Triton (python backend)", "plain FastAPI"):
        assert (server in about["left_out"]) == (f"{server}, 1 clients, per_s" not in found)
    assert "p50 of toolchain serve / plain FastAPI, 1 client" in done.stdout
