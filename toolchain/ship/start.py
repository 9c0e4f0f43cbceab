"""How a repository is served: the image whose TensorRT is the plan's, and the line that starts it."""

import shlex
from collections.abc import Sequence
from typing import Any

from toolchain.environment import version_of
from toolchain.ship.engine import Engine
from toolchain.ship.options import Options

NVIDIA = "nvcr.io/nvidia/tritonserver"
LATEST = "26.06"
"""Of the images that need no particular TensorRT, a recent one; every `-py3` image has both other backends."""

OWN = f"toolchain-triton:{LATEST}"
"""The image of docker/README.md, whose `triton-builder` builds plans with the TensorRT that is in it."""

CACHE_BYTES = 1 << 28
SHARED_MEMORY = "512m"
"""Through which the python backend's processes hand tensors on; Docker's default of 64 MB is used up soon."""

REQUIREMENTS = "requirements.txt"


def requirements(*packages: str) -> str:
    """Return the requirements of a python model, as they are installed here where it matters.

    Up to 24.10, Triton's python backend answers nothing right with numpy 2 (python_backend, pull request 384).
    """
    pinned = [f"{name}=={version_of(name)}" for name in packages]
    return "\n".join(["numpy<2", *pinned]) + "\n"


def start(name: str, engine: Engine, options: Options, *, repository: str, models: Sequence[str]) -> dict[str, Any]:
    """Return the image, the arguments of `tritonserver` that the repository needs, and the whole line."""
    image = OWN if engine.tensorrt else f"{NVIDIA}:{LATEST}-py3"
    flags = ["--model-repository=/models"]
    if options.response_cache:
        flags.append(f"--cache-config=local,size={CACHE_BYTES}")
    if engine.version_compatible:
        flags.append("--backend-config=tensorrt,version-compatible=true")
    needs = " ".join(f"-r /models/{model}/{REQUIREMENTS}" for model in models)
    served = f"pip install --quiet {needs} && exec tritonserver {' '.join(flags)}"
    gpus = [] if _on_cpu(engine) else ["--gpus=all"]
    words = ["docker", "run", "--rm", *gpus, f"--shm-size={SHARED_MEMORY}", "-p", "127.0.0.1:8000:8000", "-p",
             "127.0.0.1:8001:8001", "-p", "127.0.0.1:8002:8002", "-v", f"{repository}:/models:ro", image,
             "sh", "-c", served]  # fmt: skip
    return {"image": image, "tensorrt": engine.tensorrt, "flags": flags, "line": shlex.join(words)}


def _on_cpu(engine: Engine) -> bool:
    return bool(engine.config["instance_group"][0]["kind"] == "KIND_CPU")


def readme(name: str, started: dict[str, Any], texts: Sequence[str]) -> str:
    """Return the page beside the ensemble: how to start it and how to ask it."""
    inputs = ", ".join(f'{{"name": "{text}", "shape": [1, 1], "datatype": "BYTES", "data": ["..."]}}' for text in texts)
    checked = ""
    if started["tensorrt"]:
        checked = (
            f"\nA plan runs in the TensorRT that built it and in no other: {started['tensorrt']} here. What an "
            "image has:\n`docker run --rm IMAGE dpkg-query -W 'libnvinfer*'`. The toolchain's docker/README.md builds "
            f"{started['image']}, and engines with its TensorRT.\n"
        )
    return f"""# {name}

Text in, label out, by Triton. Start it where this repository lies:

    {started["line"]}
{checked}
Ask it:

    curl -s localhost:8000/v2/models/{name}/infer -d '{{"inputs": [{inputs}]}}'

Where the packages of the python models are in the image already, leave `pip install` out. `provenance.json` in each
version's folder says what it was made from. To go back to a version, ship its bundle again with `--version`.
"""
