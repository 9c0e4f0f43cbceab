"""Write the parts of the GPU kit: `python benchmarks/gpu/pack.py torch rtx` writes .gpu/torch-01/ and so on.

A part is a folder of limited size, which is copied to the GPU machine. The README beside this file says what each stage
checks and how to run it there. The graphs are built with this project's own commands by the Python in .venv/ (or
--python), and built again if toolchain/ has changed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from fetch import CACHE, HERE, member, pycuda, python311, tar, wheels, xz

ROOT = Path.cwd()
SHARED = ROOT.parent / "shared"
# The scripts that run on the GPU machine. Every part has a copy of them. The other scripts here run before.
CARRIED = ("kit.py", "nvml_facts.py", "stage_torch.py", "stage_rtx.py", "stage_trt8.py", "stage_ortgpu.py", "trt8.py")
MIB = 2**20

TORCH = "datasets==5.2.0 evaluate==0.4.6 dill==0.4.1 multiprocess==0.70.19 pytools==2026.1.1 platformdirs siphash24"
TORCHAO = "torchao==0.18.0"
RTX = "1.7.1.116"
TRT8 = "tensorrt==8.5.3.1"
TRT8_LIBS = (
    "libnvinfer.so.8",
    "libnvinfer_builder_resource.so.8.5.3",
    "libnvinfer_plugin.so.8",
    "libnvonnxparser.so.8",
    "libnvparsers.so.8",
)
ORT = "onnxruntime-gpu==1.30.0"
ORT_PROVIDER = "libonnxruntime_providers_cuda.so"
# Folders of Python packages that are left out of the kit, because they are not needed at run time.
DROPPED = ("/tests/", "/test/", "/__pycache__/", "/share/doc/", "/share/man/", "/include/", "/benchmarks/")

Files = list[tuple[str, Path]]


def main() -> None:
    """Write the parts of each stage that is named on the command line, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=list(STAGES), help="stages to pack")
    parser.add_argument(
        "--python",
        default=".venv/bin/python",
        help="Python of an environment that has the project (default .venv/bin/python)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=SHARED / "models/distilbert-l6-h384-sst2",
        metavar="DIR",
        help="a DistilBERT fine-tuned on sst2 (default in ../shared)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=SHARED / "glue/sst2",
        metavar="DIR",
        help="folder with sst2's rows (default in ../shared)",
    )
    parser.add_argument("--part-mib", type=float, default=57.0, help="largest size of a part in MiB (default 57)")
    args = parser.parse_args()
    if not (ROOT / "toolchain").is_dir():
        raise SystemExit(f"{ROOT}: this folder has no toolchain/. Run pack.py in the root folder of the project.")
    os.nice(10)
    for name in args.stages:
        parts = write_parts(name, STAGES[name](args), part_bytes=int(args.part_mib * MIB))
        sizes = ", ".join(f"{place} {size / MIB:.1f}" for place, size in parts)
        print(f"{name}: {len(parts)} parts, {sum(size for _, size in parts) / MIB:.1f} MiB: {sizes}")


def write_parts(name: str, files: Files, *, part_bytes: int) -> list[tuple[Path, int]]:
    """Write files into parts of at most `part_bytes`, .gpu/NAME-01 and so on; return each part and its size in bytes.

    A file that does not fit into the rest of a part is cut, and its next piece goes into the next part. Every part also
    has the scripts of the kit and NAME.json, the list of all files with their SHA-256 and their pieces.
    """
    home, manifest, parts, left = ROOT / ".gpu", [], [], 0
    for old in home.glob(f"{name}-[0-9][0-9]"):
        shutil.rmtree(old)
    for target, source in files:
        data = source.read_bytes()
        digest, pieces = hashlib.sha256(data).hexdigest(), []
        while data or not pieces:
            if left < min(len(data), MIB):
                parts.append(home / f"{name}-{len(parts) + 1:02}")
                parts[-1].mkdir(parents=True)
                left = part_bytes
            piece = f"{name}.{target.replace('/', '_')}.piece{len(pieces)}"
            (parts[-1] / piece).write_bytes(data[:left])
            pieces.append(piece)
            data, left = data[left:], left - len(data[:left])
        manifest.append({"name": target, "sha256": digest, "pieces": pieces})
    for part in parts:
        (part / f"{name}.json").write_text(json.dumps(manifest, indent=1))
        for script in CARRIED:
            shutil.copy(HERE / script, part)
    return [(part.relative_to(ROOT), sum(file.stat().st_size for file in part.iterdir())) for part in parts]


def bundle(args: argparse.Namespace, precision: str, name: str) -> Path:
    """Return a bundle of `demo` or `sst2` in this precision, without an engine. Build it if it is not in the cache.

    Raises:
        SystemExit: the build fails.
    """
    target = CACHE / "bundles" / f"{name}-{precision}-{toolchain_tree()}"
    if not (target / "bundle.json").exists():
        print(f"building {name} {precision}", flush=True)
        source = ["-m", "demo", "--task", "demo"]
        if name == "sst2":
            source = ["-m", args.checkpoint, "--task", "sst2", "--data", args.data]
        command = [args.python, "-m", "toolchain", "build", *source, "--precision", precision, "-o", target, "-q"]
        done = subprocess.run([*map(str, command)], env=_offline() | {"CUDA_VISIBLE_DEVICES": ""})
        if not (target / "bundle.json").exists():
            raise SystemExit(
                f"toolchain build of {name} {precision} ended with exit code {done.returncode}. Its message is above."
            )
    return target


def reference(args: argparse.Namespace, name: str, bundles: dict[str, Path]) -> Path:
    """Return the file with 64 rows and their expected logits. reference.py writes the file if it is not in the cache.

    `bundles` maps a precision, `fp16` and `int8`, to its bundle.
    """
    target = CACHE / f"{name}-reference-{bundles['int8'].name}.npz"
    if not target.exists():
        table = args.data / "validation.tsv" if name == "sst2" else ROOT / "toolchain/data/demo/validation.tsv"
        command = [args.python, HERE / "reference.py", table, bundles["fp16"], bundles["int8"], target]
        subprocess.run([*map(str, command)], check=True, env=_offline())
    return target


def _offline() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def toolchain_tree() -> str:
    """Return an identifier of the contents of toolchain/: digests of its git tree and of its uncommitted changes."""
    git = ["git", "rev-parse", "HEAD:toolchain"]
    tree = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    dirty = subprocess.run(["git", "diff", "HEAD", "--", "toolchain"], capture_output=True, check=True).stdout
    return f"{tree[:12]}-{hashlib.sha256(dirty).hexdigest()[:6]}"


def torch_files(args: argparse.Namespace) -> Files:
    """Return the files of stage `torch` as pairs of name and path.

    They are the wheels that an image with PyTorch lacks, a checkpoint, and sst2's validation rows.
    """
    found = [(f"wheels/{one.name}", one) for one in (*wheels("torch", *TORCH.split()), *pycuda())]
    # torchao has a folder of its own, because transformers imports it wherever it is installed.
    found += [(f"torchao/{one.name}", one) for one in wheels("torchao", TORCHAO)]
    found += [(f"sst2/{one.name}", one) for one in sorted(args.checkpoint.iterdir())]
    return [*found, ("data/validation.tsv", args.data / "validation.tsv")]


def rtx_files(args: argparse.Namespace) -> Files:
    """Return the files of stage `rtx` as pairs of name and path.

    They are TensorRT-RTX, the FP16 and INT8 graphs of the demo and of sst2, and their expected logits.
    """
    bindings = [(f"wheels/{one.name}", one) for one in wheels("rtx-bindings", f"tensorrt-rtx-cu13-bindings=={RTX}")]
    archives = {}
    for name in ("demo", "sst2"):
        bundles = {precision: bundle(args, precision, name) for precision in ("fp16", "int8")}
        members = {f"{name}/model.{kind}.onnx": place / f"model.{kind}.onnx" for kind, place in bundles.items()}
        members[f"{name}/reference.npz"] = reference(args, name, bundles)
        archives[name] = (f"{name}.tar.xz", tar(name, members))
    libs = wheels("rtx-libs", f"tensorrt-rtx-cu13-libs=={RTX}")[0]
    names = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
    compressed = [xz(member(libs, name)) for name in names]
    return [*bindings, archives["demo"], *((f"libs/{one.name}", one) for one in compressed), archives["sst2"]]


def trt8_files(args: argparse.Namespace) -> Files:
    """Return the files of stage `trt8` as pairs of name and path.

    They are the libraries of TensorRT 8.5.3, a Python 3.11 that can run its bindings, graphs, and their expected
    logits.
    """
    wheel = wheels("trt8-libs", TRT8, python="3.10")[0]
    libs = [(f"libs/{one.name}", one) for one in (xz(member(wheel, name)) for name in TRT8_LIBS)]
    graphs = CACHE / f"trt8-graphs-{toolchain_tree()}"
    if not (graphs / "reference.npz").exists():
        subprocess.run([args.python, HERE / "trt8_graphs.py", graphs], check=True, env=_offline())
    folder = python311()
    paths = [one for name in ("py311", "site", "shims") for one in sorted((folder / name).rglob("*")) if one.is_file()]
    named = {str(path.relative_to(folder)): path for path in paths}
    members = {name: path for name, path in named.items() if not any(word in f"/{name}" for word in DROPPED)}
    members |= {f"graphs/{one.name}": one for one in sorted(graphs.iterdir()) if one.suffix in (".onnx", ".npz")}
    return [("python.tar.xz", tar("trt8-python", members)), *libs]


def ortgpu_files(args: argparse.Namespace) -> Files:
    """Return the files of stage `ortgpu` as pairs of name and path.

    They are ONNX Runtime for CUDA, with its largest library as a file of its own, and the wheels that an image with
    PyTorch lacks.
    """
    wheel = wheels("ort", ORT)[0]
    provider = xz(member(wheel, ORT_PROVIDER))
    small = CACHE / "ort-small.tar"
    if not small.with_suffix(".tar.xz").exists():
        with zipfile.ZipFile(wheel) as archive, tarfile.open(small, "w") as sink:
            for one in archive.infolist():
                if not one.is_dir() and not one.filename.endswith((ORT_PROVIDER, "providers_tensorrt.so")):
                    entry = tarfile.TarInfo(f"site/{one.filename}")
                    entry.size = one.file_size
                    sink.addfile(entry, archive.open(one))
        subprocess.run(["xz", "-T2", "-6", small], check=True)
    own = [(f"wheels/{one.name}", one) for one in wheels("torch", *TORCH.split())]
    return [
        *own,
        ("ort-small.tar.xz", small.with_suffix(".tar.xz")),
        (f"site/onnxruntime/capi/{ORT_PROVIDER}.xz", provider),
    ]


STAGES: dict[str, Callable[[argparse.Namespace], Files]] = {
    "torch": torch_files,
    "rtx": rtx_files,
    "trt8": trt8_files,
    "ortgpu": ortgpu_files,
}

if __name__ == "__main__":
    main()
