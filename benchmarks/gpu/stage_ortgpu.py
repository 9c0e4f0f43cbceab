"""Stage `ortgpu`: checks ONNX Runtime on CUDA.

    python3 kit.py run ortgpu [--seconds 240] [--only STEP,...] [--dry]

It checks the fused float16 graph, the error that is raised when ONNX Runtime falls back to the CPU, and the throughput.
It builds a bundle of the demo's model and, if stage `torch` was unpacked on the same machine, one of that stage's sst2
checkpoint.
"""

import os
import sys
from pathlib import Path

from kit import HOME, REPO, Stage, install, machine, search_path
from stage_torch import arguments, best, figures, last_line

KIT = Path(os.environ["KIT"])
PYTHON = sys.executable
PROVIDERS = "import onnxruntime as o; print(o.__version__, o.__file__, o.get_available_providers())"
EVALS = {"fp32": ["--file", "model.onnx"], "fp16": [], "fp16 graphs": ["--cuda-graphs"]}


def main() -> None:
    """Run all steps of the stage."""
    args = arguments("ortgpu", 240.0)
    stage = Stage("ortgpu", args.seconds, args.only)
    site, results = HOME / "site-ort", HOME / "ortgpu-results"
    results.mkdir(exist_ok=True)
    if not (site / "datasets").exists() and (error := install(KIT / "wheels", site)):
        stage.row("wheels", "FAIL", error, 0.0)
    if not args.dry:
        stage.facts["machine"] = machine()
    env = environment(site)
    stage.run("providers", [PYTHON, "-c", PROVIDERS], least=5, most=60, env=env, summary=last_line)
    tests = [PYTHON, "-m", "pytest", "-q", "-rsfE", "-p", "no:cacheprovider", "-W", "default", "tests/test_gpu.py"]
    stage.run("pytest", [*tests, "-k", "fused or tf32"], least=30, most=120, env=env, summary=last_line)
    sources: dict[str, list[object]] = {"demo": ["-m", "demo", "--task", "demo"]}
    if (HOME / "torch/sst2/config.json").exists():
        sources["sst2"] = ["-m", HOME / "torch/sst2", "--task", "sst2", "--data", HOME / "torch/data"]
    for name, source in sources.items():
        build_and_evaluate(stage, name, source, results, env, dry=args.dry)
    options = ["--device", "cuda", "--rows", "2616", "--seconds", "6", "--energy-seconds", "5"]
    if args.dry:
        options = ["--device", "cpu", "--small", "--rows", "64", "--seconds", "1", "--energy-seconds", "0"]
    command = [PYTHON, "benchmarks/gpu/run.py", "--only", "ort*", *options, "-o", results / "bench_ort.json"]
    stage.run("bench ort", command, least=60, most=150, env=env, summary=best)
    for bundle in results.glob("bundle-*"):
        for graph in bundle.rglob("*.onnx"):
            graph.unlink()  # too large to bring back
    stage.finish(results)


def environment(site: Path) -> dict[str, str]:
    """Return the environment variables that let ONNX Runtime find the CUDA libraries in PyTorch's packages."""
    import torch

    packages = Path(torch.__file__).parent.parent / "nvidia"
    folders = [one for one in (*packages.glob("*/lib"), *packages.glob("*/lib64")) if one.is_dir()]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (REPO, KIT / "site", site))),
        "HF_HUB_OFFLINE": "1",
        "LD_LIBRARY_PATH": search_path(*folders),
    }


def build_and_evaluate(
    stage: Stage, name: str, source: list[object], results: Path, env: dict[str, str], *, dry: bool
) -> None:
    """Build an FP16 bundle, and evaluate its FP32 graph, its fused graph, and its fused graph with CUDA graphs.

    `name` names the bundle in the table and in the files of results, and `source` has the options of the model.
    """
    bundle = results / f"bundle-{name}"
    command = [PYTHON, "-m", "toolchain", "build", *source, "--precision", "fp16", "-o", bundle, "-q"]
    stage.run(f"build {name}", command, least=20, most=120, env=env)
    if not (bundle / "bundle.json").exists():
        return
    for label, options in EVALS.items():
        command = [PYTHON, "-m", "toolchain", "eval", bundle, *source[4:], "--backend", "ort", *options]
        command += ["--device", *(["cpu", "--limit", "16"] if dry else ["cuda"]), "--json", "-q"]
        stdout = stage.run(f"eval {name} {label}", command, least=20, most=90, env=env, summary=figures)
        if stdout:
            (results / f"eval_{name}_{label.replace(' ', '_')}.json").write_text(stdout)


if __name__ == "__main__":
    main()
