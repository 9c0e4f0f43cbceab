"""Makes a standalone service of a bundle: a folder for `docker compose up`, and the image that it describes."""

import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from string import Template
from typing import Any

from toolchain.base.files import let_everybody_read, replacing, write_json
from toolchain.bundle import MANIFEST, Bundle, locked, open_bundle
from toolchain.bundle.names import check_name, image_name
from toolchain.engine.plan import plans_of
from toolchain.errors import InputError, MachineError, ToolchainError, UsageError
from toolchain.records.ship import ServiceRecord
from toolchain.ship.folder import check_folder

TEMPLATES = Path(__file__).parent / "image"
TAG = re.compile(r"[a-z0-9]+(?:[._/:-][a-zA-Z0-9]+)*")

# Folder with the bundle. A service's folder contains it and the filled-in templates, and nothing else.
BUNDLE = "bundle"

# The file that excludes everything but the bundle from Docker's build context.
DOCKERIGNORE = ".dockerignore"

# Backend -> the target of docker/Dockerfile that contains the backend's libraries, and the image that this target
# builds.
BASES = {"ort": ("service", "toolchain-service:cpu"), "trt": ("service-trt", "toolchain-service:trt")}


def ship_service(
    place: Path,
    output: Path,
    *,
    name: str | None = None,
    backend: str = "ort",
    cache: int | None = None,
    trust: str | None = None,
) -> ServiceRecord:
    """Write a folder with the listed files of the bundle at `place`, a Dockerfile, a compose file and a README.

    Every user can read the files, whatever the umask is, because the image runs as another user. `name` is the model
    name for clients, by default the checkpoint's. `cache` is the value of `toolchain serve --cache`, in rows; None
    leaves the option out. `trust` is the digest that the bundle must have; None allows any.

    Raises:
        InputError: the bundle is incomplete, `output` is not the folder of a service, or another run is writing it.
        UsageError: the model name or the folder's name is not allowed, or the backend is trt and there is no plan.
    """
    check_folder(output)
    bundle = open_bundle(place, trust=trust, check_files=False)  # each file is checked when it is copied
    manifest = bundle.manifest
    check_name(model_name := name or bundle.name)
    if backend == "trt" and not plans_of(manifest["artefacts"], "trt"):
        raise UsageError(f"--backend trt: {place} has no plan. Build one: toolchain build {place} --backend trt.")
    _check_output(output, bundle)
    target, base = BASES[backend]
    image = f"{image_name(model_name)}-service:{bundle.digest[:12]}"
    words = {
        "name": model_name,
        "base": base,
        "target": target,
        "image": image,
        "options": "".join(f', "{word}"' for word in _options(backend, cache)),
        "digest": bundle.digest,
        "model": _in_code(manifest["model"]["id"]),
        "task": manifest["task"]["name"],
        "precision": manifest["precision"],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.resolve()), replacing(output.resolve()) as folder:
        for file in sorted(TEMPLATES.iterdir()):
            (folder / file.name).write_text(Template(file.read_text(encoding="utf-8")).substitute(words))
        for artefact in manifest["artefacts"]:
            bundle.copy(artefact, folder / BUNDLE / artefact)
        write_json(folder / BUNDLE / MANIFEST, manifest)
        let_everybody_read(folder)
    next_step = shlex.join(["docker", "compose", "--project-directory", str(output), "up"])
    return {"path": str(output), "name": model_name, "image": image, "sha256": bundle.digest, "next": next_step}


def _options(backend: str, cache: int | None) -> list[str]:
    """Return the options of `toolchain serve` that the command of the image gets in addition."""
    return [
        *(["--backend", "trt"] if backend == "trt" else []),
        *(["--cache", str(cache)] if cache is not None else []),
    ]


def _in_code(name: str) -> str:
    """Return a name with `?` for each character that cannot be between backticks on one line of Markdown."""
    return "".join(char if char.isprintable() and char != "`" else "?" for char in name)


def _check_output(output: Path, bundle: Bundle) -> None:
    """Refuse an output folder that exists and is not a service's, or that lies in the bundle itself."""
    if output.resolve().is_relative_to(bundle.path.resolve()):
        raise InputError(
            f"-o {output}: this folder lies in the bundle, which would be copied into itself. "
            "Choose a folder outside of it."
        )
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"-o {output}: this is a file. Choose a new folder.")
    expected = {file.name for file in TEMPLATES.iterdir()} | {BUNDLE}
    present = {file.name for file in output.iterdir()}
    if others := sorted(present - expected):
        raise InputError(
            f"-o {output}: the folder contains {others[0]}, which is not part of a service. Choose a new folder."
        )
    if missing := sorted(expected - present - {DOCKERIGNORE}):  # earlier versions did not write this file
        raise InputError(
            f"-o {output}: this is not the folder of a service, because it lacks {missing[0]}. Choose a new folder."
        )


def ship_image(place: Path, *, tag: str | None = None, **choices: Any) -> ServiceRecord:
    """Build the image of a service with Docker and name it `tag`; `choices` are arguments of `ship_service`.

    Raises:
        MachineError: Docker is not installed or does not run.
        ToolchainError: the build failed.
    """
    if tag is not None and not TAG.fullmatch(tag):
        raise UsageError(f"--tag {tag}: this is not a valid image name. Use a name such as sentiment:1.")
    docker = shutil.which("docker")
    if docker is None or _run(docker, "info").returncode:
        raise MachineError(
            "ship image: Docker is not installed or not running. Install and start it, or make a folder with "
            "`toolchain ship service` and build the image on a machine with Docker."
        )
    with tempfile.TemporaryDirectory() as folder:
        made = ship_service(place, Path(folder) / "service", **choices)
        image = tag or made["image"]
        done = _run(docker, "build", "--tag", image, made["path"])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        target, base = BASES[choices.get("backend", "ort")]
        raise ToolchainError(
            f"docker build: the build failed: {last}. If {base} does not exist, build it in the toolchain's own "
            f"folder: docker build -f docker/Dockerfile --target {target} -t {base} ."
        )
    return {
        "name": made["name"],
        "image": image,
        "sha256": made["sha256"],
        "next": f"docker run --rm -p 127.0.0.1:8000:8000 {image}",
    }


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # no shell
