"""Makes a Triton model repository from a bundle."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from toolchain import __version__
from toolchain.base.tensors import RowShape
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.names import check_name
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve_bundle
from toolchain.errors import InputError
from toolchain.evaluation.target import recorded
from toolchain.records.ship import Provenance, StartRecord, TokenizerSettings, TritonRecord
from toolchain.runtimes.environment import version_of
from toolchain.ship.cascade import First, find_first, first_files, first_shipped, shipped
from toolchain.ship.config import config_text
from toolchain.ship.engine import Engine, find_engine
from toolchain.ship.folder import check_folder
from toolchain.ship.install import LABELS, Content, Model, write_models
from toolchain.ship.launch import ARGUMENTS, REQUIREMENTS, readme, requirements, start
from toolchain.ship.models import PROVENANCE, configurations, names
from toolchain.ship.options import Options
from toolchain.ship.signature import to_json
from toolchain.ship.tokens import settings, standalone_tokenizer

# Version of the format of provenance.json.
SCHEMA: Final = 1

# File of a multi-label classifier's decoder. It contains the lowest score with which a row gets a label.
THRESHOLD: Final = "threshold.json"

# File of the decoder of a model whose outputs are not those of a classifier. It says how they are computed from the
# logits.
OUTPUTS: Final = "outputs.json"

# The code of the Python models, which is copied into the repository.
CODE = Path(__file__).parent / "repository"

# File with the code of a Python model -> the package that it needs in addition to numpy.
PACKAGES = {"tokenizer": "tokenizers", "classifier": "onnxruntime"}


def ship(path: Path, repository: Path, options: Options, *, trust: str | None = None) -> TritonRecord:
    """Write the bundle at `path` into `repository`, which may contain other models and versions.

    Returns:
        What was written, and how to start a server.

    Raises:
        ToolchainError: see errors.py.
    """
    check_folder(repository)
    bundle = open_bundle(path, trust=trust)
    resolved = resolve_bundle(bundle, recorded(bundle, {}))
    name = options.name or bundle.name
    check_name(name)
    engine, first = _engines(bundle, resolved, options)
    own = settings(resolved, engine.inputs, engine.buckets, max_characters=options.max_characters)
    configs = configurations(name, own["texts"], resolved.head, engine, options, first)
    configs["ensemble"]["parameters"] = {"bundle_sha256": {"string_value": bundle.digest}}
    engines = [engine, *([first.engine] if first and first.engine else [])]
    started = start(name, engines, options, repository)
    provenance = _provenance(bundle, resolved, engine, options, started)
    if first:
        provenance["first_files"] = first_shipped(bundle, first)
    files = _files(resolved, engine, own, provenance)
    if first:
        files |= first_files(name, first, engine, resolved)
    beside = _beside(name, own, started)
    for role in (role for role, config in configs.items() if config.get("backend") == "python"):
        code = "classifier" if role == "first" else role
        files[role]["model.py"] = CODE / f"{code}.py"
        if code in PACKAGES:
            beside[role] = {REQUIREMENTS: requirements(PACKAGES[code])}
    model_names = names(name)
    models = [
        Model(model_names[role], config_text(config), files[role], beside.get(role, {}))
        for role, config in configs.items()
    ]
    kept = write_models(models, repository, version=options.version)
    return {
        "repository": str(repository),
        "model": name,
        "version": options.version,
        "kept_versions": kept,
        "backend": engine.backend,
        "max_batch": engine.max_batch,
        "buckets": list(engine.buckets),
        "files": provenance["files"],
        "start": started,
    }


def _files(
    resolved: ResolvedRecipe, engine: Engine, own: TokenizerSettings, provenance: Provenance
) -> dict[str, dict[str, Content]]:
    """Return the files of the version folders: role of the model -> file name -> content."""
    files: dict[str, dict[str, Content]] = {
        "tokenizer": {
            "tokenizer.json": standalone_tokenizer(resolved),
            "settings.json": _json(own),
        },
        "classifier": dict(engine.files),
        "decoder": {LABELS: _json(resolved.source.labels)},
        # The ensemble needs no file, but some ways to copy a repository drop empty folders.
        "ensemble": {PROVENANCE: _json(provenance)},
    }
    if resolved.head.threshold is not None:
        files["decoder"][THRESHOLD] = f"{resolved.head.threshold}\n"
    if resolved.head.made is not None:
        files["decoder"][OUTPUTS] = _json(resolved.head.made)
    return files


def _beside(name: str, own: TokenizerSettings, started: StartRecord) -> dict[str, dict[str, Content]]:
    """Return the files next to config.pbtxt, other than requirements.txt: role of the model -> file name -> content."""
    flags = "".join(f"{flag}\n" for flag in started["flags"])
    return {"ensemble": {"README.md": readme(name, started, own["texts"]), ARGUMENTS: flags}}


def _json(value: Mapping[str, Any] | list[str]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _engines(bundle: Bundle, resolved: ResolvedRecipe, options: Options) -> tuple[Engine, First | None]:
    """Return the classifier's engine, and the first stage (None without a cascade). Both get the same largest batch."""
    engine = find_engine(bundle, options)
    first = find_first(bundle, resolved, engine, options)
    if first and first.engine:
        _check_logits(first.engine, resolved.head.row)
        most = min(engine.max_batch, first.engine.max_batch)
        engine = dataclasses.replace(engine, max_batch=most)
        first = dataclasses.replace(first, engine=dataclasses.replace(first.engine, max_batch=most))
    _check_logits(engine, resolved.head.row)
    return engine, first


def _check_logits(engine: Engine, row: RowShape) -> None:
    """Refuse an engine whose output is not float32 logits, or whose logits for a row do not have the shape `row`."""
    logits = engine.outputs.get("logits")
    file = next(iter(engine.files.values()))
    if logits is None or logits.type != "TYPE_FP32" or len(logits.dims) != 1 + len(row):
        wanted = ", ".join(["batch", *("tokens" for _ in row[:-1]), "classes"])
        raise InputError(
            f"{file}: its outputs are {', '.join(engine.outputs)}, not float32 logits [{wanted}]. "
            "Build the bundle again."
        )
    if logits.dims[-1] not in (-1, row[-1]):
        raise InputError(
            f"{file}: it outputs {logits.dims[-1]} logits, but config.json names {row[-1]} labels. "
            "Build the bundle again."
        )


def _provenance(
    bundle: Bundle, resolved: ResolvedRecipe, engine: Engine, options: Options, started: StartRecord
) -> Provenance:
    """Return the record of what a version was made from, with the tensors of its engine."""
    return {
        "schema": SCHEMA,
        "bundle_sha256": bundle.digest,
        "model": {"id": resolved.source.name, "sha256": bundle.manifest["model"]["sha256"]},
        "task": resolved.task.name,
        "precision": bundle.manifest["precision"],
        "max_length": resolved.max_length,
        "labels": resolved.source.labels,
        "version": options.version,
        "backend": engine.backend,
        "tensorrt": engine.tensorrt,
        "image": started["image"],
        "files": shipped(bundle, engine),
        "profiles": [profile.to_json() for profile in engine.profiles],
        "inputs": to_json(engine.inputs),
        "outputs": to_json(engine.outputs),
        "versions": {"toolchain": __version__, **{name: version_of(name) for name in ("tokenizers", "onnxruntime")}},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
