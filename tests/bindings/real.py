"""The real Python bindings of TensorRT on a machine without TensorRT: their own wheels over empty libraries.

The majors use one import name and one process can load one of them, so whatever needs them runs in a
process of its own. TensorRT-RTX (`rtx`) is installed with its libraries; it is called `tensorrt` here too.
"""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VERSIONS: dict[int | str, str] = {8: "8.6.1", 10: "10.16.1.11", 11: "11.4.0.106", "rtx": "1.7.1.116"}
LIBRARIES = {"libnvinfer": "CORE", "libnvinfer_plugin": "PLUGIN", "libnvonnxparser": "PARSER"}
SHIM = "from {module} import *\nfrom {module} import __version__\n"


def run(major: int | str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run python with `arguments` where `import tensorrt` gives the real bindings of `major`."""
    libraries = stubs(major)
    added = {
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join(map(str, (libraries, find(major), HERE, ROOT))),
    }
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | added | (env or {}), capture_output=True, text=True, timeout=120
    )


def find(major: int | str) -> Path:
    """Return the folder of the bindings, or skip the test; where CI is set they must be there."""
    if major == "rtx":
        spec = importlib.util.find_spec("tensorrt_rtx_bindings")
        if spec is None or spec.origin is None:
            _give_up("no TensorRT-RTX: pip install 'encoder-toolchain[rtx]'")
        return Path(spec.origin).parent.parent
    folder = Path(os.environ.get("TOOLCHAIN_BINDINGS") or ROOT / ".venv" / "bindings") / str(major)
    if not (folder / "tensorrt_bindings").is_dir():
        _give_up(
            f"no bindings of TensorRT {major}: pip install --target {folder} --no-deps "
            f"{'tensorrt-bindings' if major == 8 else 'tensorrt-cu12-bindings'}=={VERSIONS[major]}"
        )
    return folder


@functools.cache
def stubs(major: int | str) -> Path:
    """Return a folder with the three empty libraries and the package `tensorrt`, made once a process."""
    folder = Path(_scratch().name) / str(major)
    (folder / "tensorrt").mkdir(parents=True)
    module = "tensorrt_rtx_bindings" if major == "rtx" else "tensorrt_bindings"
    (folder / "tensorrt" / "__init__.py").write_text(SHIM.format(module=module))
    if major == "rtx":
        return folder  # it has its libraries
    compiler = shutil.which("cc")
    if compiler is None:
        _give_up("no C compiler for the empty libraries: apt-get install gcc libc6-dev")
    libraries = LIBRARIES | ({"libnvparsers": "PARSERS"} if major == 8 else {})
    for name, macro in libraries.items():
        file = f"{name}.so.{major}"
        options = ["-shared", "-fPIC", f"-D{macro}", f"-Wl,-soname,{file}"]
        subprocess.run([compiler, *options, "-o", folder / file, HERE / "stubs.c"], check=True)
    return folder


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tensorrt-stubs-")  # removed when the process ends


@functools.cache
def surface(major: int | str) -> dict[str, Any]:
    """Return what the real module of a major has, as `surface.dump` describes it."""
    done = run(major, str(HERE / "surface.py"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
