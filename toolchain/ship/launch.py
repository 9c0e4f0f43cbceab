"""How a repository is served: what its models need of a server, the image that has it, and the line that starts it.

Said here once. Beside their configurations python models have what pip must install for them, and ensembles what
`tritonserver` must be told; the line below reads that, and so does docker/serve_repository.sh, which every container
of our own image starts with.
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.runtimes.environment import version_of
from toolchain.ship.config import CONFIG, read_config
from toolchain.ship.engine import Engine
from toolchain.ship.models import names
from toolchain.ship.options import Options

LATEST = "26.06"
"""Of the images that need no particular TensorRT, a recent one; every `-py3` image has both other backends."""

STOCK = f"nvcr.io/nvidia/tritonserver:{LATEST}-py3"
OWN = f"toolchain-triton:{LATEST}"
"""The image of docker/README.md, whose `triton-builder` builds plans with the TensorRT that is in it."""

CACHE_BYTES = 1 << 28
SHARED_MEMORY = "512m"
"""Through which the python backend's processes hand tensors on; Docker's default of 64 MB is used up soon."""

REQUIREMENTS = "requirements.txt"
ARGUMENTS = "tritonserver.txt"

INSTALL_AND_SERVE = (
    f"sort -u /models/*/{REQUIREMENTS} > /tmp/needed.txt && pip install --quiet -r /tmp/needed.txt "
    f"&& exec tritonserver --model-repository=/models $(sort -u /models/*/{ARGUMENTS})"
)
"""What runs in an image that has none of it; whatever else is in the repository is looked after too."""

KIND_CPU = 2


def requirements(*packages: str) -> str:
    """Return the requirements of a python model, as they are installed here where it matters.

    Up to 24.10, Triton's python backend answers nothing right with numpy 2 (python_backend, pull request 384).
    """
    pinned = [f"{name}=={version_of(name)}" for name in packages]
    return "\n".join(["numpy<2", *pinned]) + "\n"


def arguments(engine: Engine, options: Options) -> list[str]:
    """Return what `tritonserver` must be told for these models, whose configurations are complete."""
    told = ["--disable-auto-complete-config"]
    if options.response_cache:
        told.append(f"--cache-config=local,size={CACHE_BYTES}")
    if engine.version_compatible:
        told.append("--backend-config=tensorrt,version-compatible=true")
    return told


def start(name: str, engine: Engine, options: Options, repository: Path) -> dict[str, Any]:
    """Return the image, the arguments that these models need, and the line that serves all of the repository."""
    others = list(_others(name, repository))
    plans = engine.tensorrt is not None or any(one.platform == "tensorrt_plan" for one in others)
    kinds = {group.kind for one in others for group in one.instance_group}
    on_gpu = engine.config["instance_group"][0]["kind"] != "KIND_CPU" or bool(kinds - {KIND_CPU})
    image = OWN if plans else STOCK
    words = [
        "docker",
        "run",
        "--rm",
        *(["--gpus=all"] if on_gpu else []),
        f"--shm-size={SHARED_MEMORY}",
        "-p",
        "127.0.0.1:8000:8000",
        "-p",
        "127.0.0.1:8001:8001",
        "-p",
        "127.0.0.1:8002:8002",
        "-v",
        f"{repository.resolve()}:/models:ro",
        image,
    ]
    words += [] if image == OWN else ["sh", "-c", INSTALL_AND_SERVE]
    told = arguments(engine, options)
    return {"image": image, "tensorrt": engine.tensorrt, "flags": told, "line": shlex.join(words)}


def _others(name: str, repository: Path) -> Iterator[Any]:
    """Yield the configurations of the models that are there already, but for those that are to be replaced."""
    own = names(name).values()
    for file in repository.glob(f"*/{CONFIG}"):
        if file.parent.name not in own:
            with contextlib.suppress(InputError):  # for --lint to say
                yield read_config(file)


def readme(name: str, started: dict[str, Any], texts: Sequence[str]) -> str:
    """Return the page beside the ensemble: how to start it and how to ask it."""
    inputs = ", ".join(f'{{"name": "{text}", "shape": [1, 1], "datatype": "BYTES", "data": ["..."]}}' for text in texts)
    checked = ""
    if started["tensorrt"]:
        checked = (
            f"\nA plan runs in the TensorRT that built it and in no other: {started['tensorrt']} here. What an "
            "image has:\n`docker run --rm IMAGE dpkg-query -W 'libnvinfer*'`. The toolchain's docker/README.md builds "
            f"{OWN}, and engines with its TensorRT.\n"
        )
    return f"""# {name}

Text in, label out, by Triton. Start it where this repository lies:

    {started["line"]}
{checked}
Ask it:

    curl -s localhost:8000/v2/models/{name}/infer -d '{{"inputs": [{inputs}]}}'

A server of your own must be given what is in `{ARGUMENTS}`, and needs the packages in the `{REQUIREMENTS}` of the
python models; {OWN} has both by itself. `provenance.json` in each version's folder says what it was made
from. To go back to a version, ship its bundle again with `--version`.
"""
