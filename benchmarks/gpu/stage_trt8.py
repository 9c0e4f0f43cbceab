"""Stage `trt8`: builds and runs engines with TensorRT 8.5.3, in a Python 3.11 that the kit brings along.

    python3 kit.py run trt8 [--seconds 330] [--only STEP,...] [--dry]

The bindings are those of TensorRT 8.6.1. The steps are:

    graph               makes the project's packed graphs, without TensorRT
    load                loads TensorRT, its plugins and its builder
    fp32, fp16, qdq     run a padded graph in FP32, in FP16, and in INT8 with explicit Q/DQ nodes
    sums, sums32        run an INT8 GEMM whose sums exceed float16's range, with FP16 allowed or not
    calibrate           runs TensorRT's entropy calibrator on the project's calibration network
    plugin16, plugin8   run the packed graph with the attention plugin, in FP16 and in INT8 (with that calibration)

Without a GPU, `--dry` runs each step until it needs one.
"""

import json
import os
import subprocess
from pathlib import Path

from kit import HOME, REPO, Stage, machine, search_path
from stage_torch import arguments

KIT = Path(os.environ["KIT"])
# Step -> its time limit in seconds. The most valuable steps come first.
STEPS = {
    "graph": 60,
    "load": 120,
    "fp32": 150,
    "qdq": 150,
    "sums": 90,
    "fp16": 150,
    "calibrate": 150,
    "plugin16": 120,
    "plugin8": 150,
    "sums32": 90,
}


def find(name: str) -> str:
    """Return the path of the library with this file name on this machine, or an empty string if there is none."""
    command = ["find", "/opt", "/usr/local", "/usr/lib", "-name", name]
    return (subprocess.run(command, capture_output=True, text=True).stdout.split() or [""])[0]


def main() -> None:
    """Run all steps of the stage, each in a process of its own."""
    args = arguments("trt8", 330.0)
    stage = Stage("trt8", args.seconds, args.only)
    if not args.dry:
        stage.facts["machine"] = machine()
    root = KIT / "py311"
    python = root / "usr/bin/python3.11"
    python.chmod(0o755)
    cublas = find("libcublas.so.13")
    # TensorRT's libraries, the shims, and the libz, libexpat and libffi that the Python 3.11 needs.
    folders = [KIT / "libs", KIT / "shims", root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu"]
    env = {
        "LD_LIBRARY_PATH": search_path(*folders, *([Path(cublas).parent] if cublas else [])),
        "CUDA_MODULE_LOADING": "LAZY",
        "PYTHONPATH": str(KIT / "site"),
        "KIT_CUBLAS": cublas,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    stage.row("cublas", "ok" if cublas else "none", cublas, 0.0)
    work = HOME / "trt8-out"
    work.mkdir(exist_ok=True)
    for step, most in STEPS.items():
        command = [python, HOME / "trt8.py", step, KIT, work, REPO]
        stage.run(step, command, least=15, most=most, env=env, summary=one_line)
    stage.facts["layers"] = {file.name: layer_names(file) for file in sorted(work.glob("*-layers.json"))}
    stage.finish(work)


def one_line(stdout: str) -> str:
    """Return the last 400 characters of the output, as one line."""
    return stdout.strip().replace("\n", " ")[-400:]


def layer_names(file: Path) -> list[str]:
    """Return the names of an engine's layers from the file of its inspector; if that fails, the error in a list."""
    try:
        layers = json.loads(file.read_text())["Layers"]
    except (ValueError, KeyError) as error:
        return [str(error)]
    return [str(one.get("Name", one) if isinstance(one, dict) else one)[:120] for one in layers]


if __name__ == "__main__":
    main()
