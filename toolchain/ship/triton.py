"""A Triton model repository, made from a bundle."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain import __version__
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.names import check_name
from toolchain.bundle.resolved import ResolvedRecipe, resolve_bundle
from toolchain.errors import InputError
from toolchain.evaluation.target import recorded
from toolchain.files import sha256_file
from toolchain.runtimes.environment import version_of
from toolchain.ship.config import Values, config_text
from toolchain.ship.engine import Engine, find_engine
from toolchain.ship.install import LABELS, Model, place
from toolchain.ship.launch import ARGUMENTS, REQUIREMENTS, readme, requirements, start
from toolchain.ship.models import PROVENANCE, configurations, names
from toolchain.ship.options import Options
from toolchain.ship.signature import to_json
from toolchain.ship.tokens import settings, standalone

SCHEMA = 1
CODE = Path(__file__).parent / "repository"


def ship(path: Path, repository: Path, options: Options, *, trust: str | None = None) -> dict[str, Any]:
    """Write the bundle at `path` into `repository`, which may have other models and versions; say how to start it.

    Raises:
        ToolchainError: see errors.py.
    """
    bundle = open_bundle(path, trust=trust)
    resolved = resolve_bundle(bundle, recorded(bundle, {}))
    name = options.name or bundle.name
    check_name(name)
    engine = find_engine(bundle, options)
    _check_head(engine, resolved)
    own = settings(resolved, engine.inputs, engine.buckets, max_characters=options.max_characters)
    configs = configurations(name, own["texts"], len(resolved.source.labels), engine, options)
    configs["ensemble"]["parameters"] = {"bundle_sha256": {"string_value": bundle.digest}}
    called = names(name)
    pips = {"tokenizer": requirements("tokenizers")}
    if engine.backend == "python":
        pips["classifier"] = requirements("onnxruntime")
    started = start(name, engine, options, repository)
    about = _provenance(bundle, resolved, engine, options, started)
    files: dict[str, dict[str, Path | str]] = {
        "tokenizer": {
            "model.py": CODE / "tokenizer.py",
            "tokenizer.json": standalone(resolved),
            "settings.json": _json(own),
        },
        "classifier": dict(engine.files),
        "decoder": {"model.py": CODE / "decoder.py", LABELS: _json(resolved.source.labels)},
        "ensemble": {PROVENANCE: _json(about)},  # which also keeps the folder where empty ones get lost
    }
    if engine.backend == "python":
        files["classifier"]["model.py"] = CODE / "classifier.py"
    beside: dict[str, dict[str, Path | str]] = {role: {REQUIREMENTS: text} for role, text in pips.items()}
    told = "".join(f"{one}\n" for one in started["flags"])
    beside["ensemble"] = {"README.md": readme(name, started, own["texts"]), ARGUMENTS: told}
    models = [Model(called[role], config_text(configs[role]), files[role], beside.get(role, {})) for role in called]
    kept = place(models, repository, version=options.version)
    return {
        "repository": str(repository),
        "model": name,
        "version": options.version,
        "kept_versions": kept,
        "backend": engine.backend,
        "max_batch": engine.max_batch,
        "buckets": list(engine.buckets),
        "files": about["files"],
        "start": started,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _check_head(engine: Engine, resolved: ResolvedRecipe) -> None:
    logits = engine.outputs.get("logits")
    if logits is None or logits.type != "TYPE_FP32" or len(logits.dims) != 2:
        raise InputError(
            f"{next(iter(engine.files.values()))}: its outputs are {', '.join(engine.outputs)}, not float32 logits "
            "[batch, classes]. Build it again."
        )
    if logits.dims[1] not in (-1, len(resolved.source.labels)):
        raise InputError(
            f"{next(iter(engine.files.values()))}: gives {logits.dims[1]} logits, and config.json names "
            f"{len(resolved.source.labels)} labels. Build it again."
        )


def _provenance(
    bundle: Bundle, resolved: ResolvedRecipe, engine: Engine, options: Options, started: Values
) -> dict[str, Any]:
    """Return what a version was made from, and what its engine takes and gives."""
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
        "files": {
            name: {"from": str(file.relative_to(bundle.path)), "sha256": sha256_file(file)}
            for name, file in engine.files.items()
            if isinstance(file, Path)
        },
        "profiles": [profile.to_json() for profile in engine.profiles],
        "inputs": to_json(engine.inputs),
        "outputs": to_json(engine.outputs),
        "versions": {"toolchain": __version__} | {name: version_of(name) for name in ("tokenizers", "onnxruntime")},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
