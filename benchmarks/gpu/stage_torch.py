"""Stage `torch`: checks the project's code for PyTorch, NVML and PyCUDA, with the GPU machine's own Python.

    python3 kit.py run torch [--seconds 420] [--only STEP,...] [--dry]

The most valuable steps come first. A step for which too little time is left is skipped, and the table says so. To test
the script, `--dry` runs it on a CPU.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from kit import HOME, REPO, Stage, install, machine

KIT = Path(os.environ["KIT"])
PYTHON = sys.executable
ENERGY = ["--energy", "--energy-window", "5", "--energy-windows", "2", "--energy-warmup", "8"]
FP32, FP16, SDPA = ["--precision", "fp32"], ["--precision", "fp16"], ["--attention", "sdpa"]
PACKED = ["--attention", "packed"]
EVALS = {  # label -> options of `toolchain eval`
    "fp16 sdpa energy": [*FP16, *SDPA, *ENERGY],
    "fp16 packed": [*FP16, *PACKED],
    "fp32": [*FP32, *SDPA],
    "bf16": ["--precision", "bf16", *SDPA],
    "fp16 graphs": [*FP16, *SDPA, "--cuda-graphs"],
    "fp16 flash": [*FP16, "--attention", "flash"],
    "fp16 flex": [*FP16, "--attention", "flex"],
}
# These run after the quick benchmark, if there is time.
LATE_EVALS = {
    "fp16 compile": [*FP16, *SDPA, "--compile"],
    "fp16 compile graphs": [*FP16, *SDPA, "--compile", "--cuda-graphs"],
    "fp32 energy": [*FP32, *SDPA, *ENERGY],
    "fp16 packed energy": [*FP16, *PACKED, *ENERGY],
}
BENCHES = {  # label -> contenders in addition to the baseline, time that must be left, time limit (s)
    "bench quick": ("torch fp16 [!c]*", 90, 180),
    "bench compiled": ("torch fp16 compiled*", 90, 240),
    "bench eights": ("torch *8 compiled", 90, 240),
    "bench all": ("*", 300, 560),
}
LIBRARIES = r"\( -name 'libnvinfer*' -o -name 'libcudnn.so*' -o -name 'libcublas.so*' -o -name Python.h \)"
INVENTORY = (
    "nvidia-smi; nvidia-smi -q -d POWER,CLOCK,PERFORMANCE,ECC; nvcc --version; python3 -m pip list; "
    rf"find / \( -path /proc -o -path /sys \) -prune -o {LIBRARIES} -print 2>/dev/null; true"
)


def main() -> None:
    """Run all steps of the stage."""
    args = arguments("torch", 420.0)
    stage = Stage("torch", args.seconds, args.only)
    site, results = HOME / "site", HOME / "torch-results"
    results.mkdir(exist_ok=True)
    error = None if (site / "datasets").exists() else install(KIT / "wheels", site)
    stage.row("wheels", "FAIL" if error else "ok", error or str(len(list((KIT / "wheels").glob("*.whl")))), 0.0)
    os.environ |= {"PYTHONPATH": f"{REPO}{os.pathsep}{site}", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTHONWARNINGS"] = "ignore::SyntaxWarning"
    if not args.dry:
        stage.facts["machine"] = machine()
        print(stage.facts["machine"], flush=True)
    look(stage, results)
    for name, options in EVALS.items():
        evaluate(stage, name, options, results, dry=args.dry)
    bench(stage, "bench quick", results, dry=args.dry)
    for name, options in LATE_EVALS.items():
        evaluate(stage, name, options, results, dry=args.dry)
    for label in ("bench compiled", "bench eights", "bench all"):
        bench(stage, label, results, dry=args.dry)
    stage.finish(results)


def arguments(name: str, seconds: float) -> argparse.Namespace:
    """Parse the options that every stage has. `seconds` is the default time limit of the stage `name`."""
    parser = argparse.ArgumentParser(prog=f"kit.py run {name}")
    parser.add_argument("--seconds", type=float, default=seconds, help=f"time limit in seconds (default {seconds:g})")
    parser.add_argument(
        "--only",
        type=lambda text: [one for one in text.split(",") if one],
        default=[],
        metavar="STEP,...",
        help="run only the steps whose names begin with one of these",
    )
    parser.add_argument("--dry", action="store_true", help="test the script without a GPU")
    return parser.parse_args()


def look(stage: Stage, results: Path) -> None:
    """Run the steps that examine the machine.

    They list its software, run `toolchain doctor`, measure how NVML behaves, measure an idle command with
    `toolchain power`, and run tests/test_gpu.py.
    """
    stage.run(
        "look",
        ["bash", "-c", INVENTORY],
        least=5,
        most=60,
        summary=lambda stdout: (
            f"mentions of libnvinfer: {stdout.count('libnvinfer')}, Python.h: {stdout.count('Python.h')}"
        ),
    )
    stage.run("doctor", [PYTHON, "-m", "toolchain", "doctor", "--json"], least=5, most=90, summary=doctor)
    facts = [PYTHON, HOME / "nvml_facts.py", results / "nvml_facts.json", "--seconds", "6"]
    stage.run("nvml facts", facts, least=10, most=90, summary=last_line)
    power = [PYTHON, "-m", "toolchain", "power", "--json", "-o", results / "power_sleep.json", "--", "sleep", "6"]
    stage.run("power sleep", power, least=10, most=60, summary=mean_power)
    tests = [PYTHON, "-m", "pytest", "-q", "-rsfE", "-p", "no:cacheprovider", "--durations=8", "-W", "default"]
    stage.run("pytest", [*tests, "tests/test_gpu.py"], least=30, most=200, summary=last_line)


def evaluate(stage: Stage, name: str, options: list[str], results: Path, *, dry: bool) -> None:
    """Run `toolchain eval` with these options on the sst2 checkpoint; write its JSON to `results`."""
    command = [PYTHON, "-m", "toolchain", "eval", "-m", KIT / "sst2", "--task", "sst2", "--data", KIT / "data"]
    command += ["--backend", "torch", "--device", "cpu" if dry else "cuda", *options, "--json", "-q"]
    if dry:
        command += ["--limit", "16"]
    energy = "--energy" in options
    limits = {"least": 80 if energy else 20, "most": 150 if energy else 90}
    stdout = stage.run(f"eval {name}", command, **limits, summary=figures)
    if stdout:
        (results / f"eval_{name.replace(' ', '_')}.json").write_text(stdout)


def bench(stage: Stage, label: str, results: Path, *, dry: bool) -> None:
    """Run benchmarks/gpu/run.py with the contenders that BENCHES has for this label.

    torchao is installed in a folder of its own, which is in PYTHONPATH only for runs with INT8 or FP8 contenders.
    """
    only, least, most = BENCHES[label]
    if label == "bench all" and "bench all" not in stage.only:
        return  # it takes seven minutes or more, so it runs only by name
    site = HOME / "site-torchao"
    if not (site / "torchao").exists() and (error := install(KIT / "torchao", site)):
        stage.row("torchao", "FAIL", error, 0.0)
    options = ["--rows", "2616", "--seconds", "6", "--energy-seconds", "5", "--device", "cuda"]
    if dry:
        options = ["--rows", "64", "--small", "--seconds", "1", "--energy-seconds", "0", "--device", "cpu"]
        least = 10
    env = {}
    if "8" in only or only == "*":
        env["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], str(site)])
    file = results / f"{label.replace(' ', '_')}.json"
    command = [PYTHON, "benchmarks/gpu/run.py", "--only", only, *options, "-o", file]
    stage.run(label, command, least=least, most=most, summary=best, env=env)
    if file.exists():
        keys = ("name", "rows_per_s", "rows_per_s_ratio", "j_per_row", "energy_ratio", "max_abs_logit_difference")
        contenders = json.loads(file.read_text())["contenders"]
        stage.facts[label] = [{key: one.get(key) for key in keys} for one in contenders]


def last_line(stdout: str) -> str:
    """Return the last line of the output that is not empty."""
    return next((line for line in reversed(stdout.strip().splitlines()) if line.strip()), "")[:150]


def doctor(stdout: str) -> str:
    """Return the names of what `toolchain doctor` reports as not ok, from its JSON output."""
    return "lacks " + ", ".join(one["name"] for one in json.loads(stdout)["findings"] if one["state"] != "ok")


def mean_power(stdout: str) -> str:
    """Return the main figures in the JSON output of `toolchain power`, as text."""
    record = json.loads(stdout)
    keys = ("status", "seconds", "mean_power_w", "joules")
    return str({key: record[key] for key in keys if key in record} or list(record))[:150]


def figures(stdout: str) -> str:
    """Return the metric, the parity, the speed and the energy in the JSON output of `toolchain eval`, as text."""
    result = json.loads(stdout)
    energy = result.get("energy") or {}
    joules = energy.get("per_inference_j")
    parts = [
        f"acc {result['metrics'][result['primary']]:.4f}",
        f"|d| {result['agreement']['max_abs_logit_difference']:.1e}",
        f"{result['throughput_per_s']:,.0f} rows/s",
        f"p50 {result['latency_ms']['p50']:.2f} ms",
        f"{1000 * joules:.3f} mJ/row" if joules else str(energy.get("reason") or energy.get("status") or ""),
    ]
    return ", ".join(parts)


def best(stdout: str) -> str:
    """Print the benchmark's table, and return its line of the fastest contender."""
    print(stdout, flush=True)
    lines = stdout.strip().splitlines()
    return lines[1][:110] if len(lines) > 1 else ""


if __name__ == "__main__":
    main()
