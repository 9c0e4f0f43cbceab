"""A bundle as a service of its own: a folder for `docker compose up`, and the image that it describes."""

import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from string import Template
from typing import Any

from toolchain.bundle import RESULTS, Bundle, locked, open_bundle
from toolchain.bundle.names import check_name, image_name
from toolchain.engine.plan import is_plan
from toolchain.errors import InputError, MachineError, ToolchainError, UsageError
from toolchain.files import replacing

TEMPLATES = Path(__file__).parent / "image"
TAG = re.compile(r"[a-z0-9]+(?:[._/:-][a-zA-Z0-9]+)*")

BUNDLE = "bundle"
"""The folder in a service's that has the bundle; beside it are the templates, filled in, and nothing else."""

BASES = {"ort": ("service", "toolchain-service:cpu"), "trt": ("service-trt", "toolchain-service:trt")}
"""Backend -> the target of docker/Dockerfile that has its libraries, and the image that it makes."""


def ship_service(
    place: Path, output: Path, *, name: str | None = None, backend: str = "ort", trust: str | None = None
) -> dict[str, Any]:
    """Write a folder with the bundle, a Dockerfile, a compose file and a page that says how to run it.

    Returns:
        Its path, the model's name, the image that the compose file builds, the bundle's digest and the next step.

    Raises:
        InputError: no whole bundle, `output` holds something else, or another run is writing it.
        UsageError: a name that no server takes, or the bundle has no plan for `trt`.
    """
    bundle = open_bundle(place, trust=trust)
    about = bundle.manifest
    chosen = name or bundle.name
    check_name(chosen)
    if backend == "trt" and not any(map(is_plan, about["artefacts"])):
        raise UsageError(f"--backend trt: {place} has no plan. Build one first: toolchain build --backend trt.")
    _check_output(output, bundle)
    target, base = BASES[backend]
    image = f"{image_name(chosen)}-service:{bundle.digest[:12]}"
    words = {
        "name": chosen,
        "base": base,
        "target": target,
        "image": image,
        "backend": ', "--backend", "trt"' if backend == "trt" else "",
        "digest": bundle.digest,
        "model": about["model"]["id"],
        "task": about["task"]["name"],
        "precision": about["precision"],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.resolve()), replacing(output.resolve()) as folder:
        for file in sorted(TEMPLATES.iterdir()):
            (folder / file.name).write_text(Template(file.read_text(encoding="utf-8")).substitute(words))
        shutil.copytree(bundle.path, folder / BUNDLE, ignore=lambda *_: [RESULTS])
    next_step = shlex.join(["docker", "compose", "--project-directory", str(output), "up"])
    return {"path": str(output), "name": chosen, "image": image, "sha256": bundle.digest, "next": next_step}


def _check_output(output: Path, bundle: Bundle) -> None:
    """Refuse to replace a folder with anything in it that we do not write, and to copy a bundle into itself."""
    if output.resolve().is_relative_to(bundle.path.resolve()):
        raise InputError(f"-o {output}: is in the bundle, which would be copied into itself. Give a folder outside.")
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"-o {output}: is a file. Give a new folder.")
    ours = {file.name for file in TEMPLATES.iterdir()} | {BUNDLE}
    there = {file.name for file in output.iterdir()}
    if others := sorted(there - ours):
        raise InputError(f"-o {output}: is there, and {others[0]} in it is not of a service. Give a new folder.")
    if missing := sorted(ours - there):
        raise InputError(f"-o {output}: is there, and no such service: it has no {missing[0]}. Give a new folder.")


def ship_image(place: Path, *, tag: str | None = None, **choices: Any) -> dict[str, Any]:
    """Build that image with Docker, named `tag`.

    Returns:
        As `ship_service`, without a folder.

    Raises:
        MachineError: there is no Docker, or it does not answer.
        ToolchainError: the build failed.
    """
    if tag is not None and not TAG.fullmatch(tag):
        raise UsageError(f"--tag {tag}: no name of an image. Give one such as sentiment:1.")
    docker = shutil.which("docker")
    if docker is None or _run(docker, "info").returncode:
        raise MachineError(
            "ship image: Docker is not here, or does not answer. Install and start it, or take the folder "
            "that `toolchain ship service` makes to a machine that has it."
        )
    with tempfile.TemporaryDirectory() as folder:
        made = ship_service(place, Path(folder) / "service", **choices)
        image = tag or made["image"]
        done = _run(docker, "build", "--tag", image, made["path"])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        target, base = BASES[choices.get("backend", "ort")]
        raise ToolchainError(
            f"docker build: failed: {last}. If {base} is not there, make it in the toolchain's own folder: "
            f"docker build -f docker/Dockerfile --target {target} -t {base} ."
        )
    return {
        "name": made["name"],
        "image": image,
        "sha256": made["sha256"],
        "next": f"docker run --rm -p 127.0.0.1:8000:8000 {image}",
    }


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # no word of it is free
