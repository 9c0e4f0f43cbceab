"""TensorRT: for now, only what is missing for it."""

import importlib.util
from pathlib import Path
from typing import NoReturn

from toolchain.errors import MachineError


def open_trt(plan: Path, **choices: str) -> NoReturn:
    """Refuse, and say what this machine or this version lacks to build and run plans.

    Raises:
        MachineError: always; it names the first thing that is missing.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise MachineError(
            "--backend trt: TensorRT is not installed. On a machine with an NVIDIA GPU: "
            "pip install 'encoder-toolchain[cuda,tensorrt]'. `toolchain doctor` shows what else is missing."
        )
    raise MachineError(
        "--backend trt: this version makes the ONNX graphs that TensorRT takes, but no engines yet. "
        "Build one yourself: trtexec --stronglyTyped --onnx=model.int8.onnx."
    )
