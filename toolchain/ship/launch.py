"""States what a repository's models need from a server: the image, its arguments, and the command that starts it.

The requirements are in two files beside the configurations: packages for the Python models, and arguments of
`tritonserver` beside the ensembles. Both the command made here and docker/serve_repository.sh, the entry point of the
project's own image, read these files.
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.records.ship import StartRecord
from toolchain.runtimes.environment import version_of
from toolchain.ship.config import CONFIG, InstanceGroup, read_config
from toolchain.ship.engine import Engine
from toolchain.ship.models import names
from toolchain.ship.options import Options

# A recent release of Triton, for repositories without plans, which need no particular TensorRT. Every `-py3` image has
# the onnxruntime and python backends.
LATEST = "26.06"
STOCK = f"nvcr.io/nvidia/tritonserver:{LATEST}-py3"

# The image that docker/README.md describes. The target `triton-builder` there builds plans with the TensorRT that this
# image contains.
OWN = f"toolchain-triton:{LATEST}"

# Size of the response cache in bytes: 256 MiB.
CACHE_BYTES = 1 << 28

# Size of /dev/shm. The processes of the python backend exchange tensors through shared memory, for which Docker's
# default of 64 MB is too small.
SHARED_MEMORY = "512m"

REQUIREMENTS = "requirements.txt"
ARGUMENTS = "tritonserver.txt"

# Shell command for an image without this project. It installs the requirements of all models in the repository,
# including models of other projects, and serves them.
INSTALL_AND_SERVE = (
    f"sort -u /models/*/{REQUIREMENTS} > /tmp/needed.txt && pip install --quiet -r /tmp/needed.txt "
    f"&& exec tritonserver --model-repository=/models $(sort -u /models/*/{ARGUMENTS})"
)


def requirements(*packages: str) -> str:
    """Return the requirements.txt of a Python model, with the versions that are installed here.

    Up to Triton 24.10 the python backend fails on each request with numpy 2 (python_backend, pull request 384).
    """
    pinned = [f"{name}=={version_of(name)}" for name in packages]
    return "\n".join(["numpy<2", *pinned]) + "\n"


def arguments(engines: Sequence[Engine], options: Options) -> list[str]:
    """Return the arguments that `tritonserver` needs for these models.

    Their configurations are complete, so Triton is told not to complete them.
    """
    flags = ["--disable-auto-complete-config"]
    if options.response_cache:
        flags.append(f"--cache-config=local,size={CACHE_BYTES}")
    if any(engine.version_compatible for engine in engines):
        flags.append("--backend-config=tensorrt,version-compatible=true")
    return flags


def start(name: str, engines: Sequence[Engine], options: Options, repository: Path) -> StartRecord:
    """Return the image and arguments of a server for these models, and the command that serves the whole repository."""
    others = list(_others(name, repository))
    tensorrt = next((engine.tensorrt for engine in engines if engine.tensorrt), None)
    plans = tensorrt is not None or any(one.platform == "tensorrt_plan" for one in others)
    kinds = {group.kind for one in others for group in one.instance_group}
    own = {engine.config["instance_group"][0]["kind"] for engine in engines}
    on_gpu = own != {"KIND_CPU"} or bool(kinds - {InstanceGroup.KIND_CPU})
    image = OWN if plans else STOCK
    command = [
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
        *([] if image == OWN else ["sh", "-c", INSTALL_AND_SERVE]),
    ]
    flags = arguments(engines, options)
    return {"image": image, "tensorrt": tensorrt, "flags": flags, "line": shlex.join(command)}


def _others(name: str, repository: Path) -> Iterator[Any]:
    """Yield the ModelConfig messages of the existing models, except those that this run replaces."""
    own = names(name).values()
    for file in repository.glob(f"*/{CONFIG}"):
        if file.parent.name not in own:
            with contextlib.suppress(InputError):  # --lint reports a broken configuration
                yield read_config(file)


def readme(name: str, started: StartRecord, texts: Sequence[str]) -> str:
    """Return the text of the ensemble's README.md: how to start a server, and how to send a request."""
    inputs = ", ".join(f'{{"name": "{text}", "shape": [1, 1], "datatype": "BYTES", "data": ["..."]}}' for text in texts)
    plan_note = ""
    if started["tensorrt"]:
        plan_note = (
            f"\nA plan runs only in the version of TensorRT that built it: {started['tensorrt']} here. To see the "
            "version in an\nimage: `docker run --rm IMAGE dpkg-query -W 'libnvinfer*'`. The toolchain's "
            f"docker/README.md describes how to\nbuild {OWN}, and plans with the TensorRT in it.\n"
        )
    return f"""# {name}

Text in, label out, by Triton. Start the server on the machine that has this repository:

    {started["line"]}
{plan_note}
Send a request:

    curl -s localhost:8000/v2/models/{name}/infer -d '{{"inputs": [{inputs}]}}'

A server that you start in another way needs the arguments in `{ARGUMENTS}` and the packages in the `{REQUIREMENTS}` of
the Python models; {OWN} reads both. `provenance.json` in each version folder records what the version was
made from. To return to an earlier version, ship its bundle again with `--version`.
"""
