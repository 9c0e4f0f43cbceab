"""Checks of the Python models that this project writes: of each file that such a model reads when it starts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolchain.ship.faults import Check, Finding, LoadedModel, Models
from toolchain.ship.models import CUT

# Each model.py of this project begins with this text, followed by the role of the model.
FIRST_LINE = '"""Triton\'s model NAME_'

SHIP_AGAIN = "Ship the bundle again"


def own_files(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the files which a model.py of this project reads exist and can be read."""
    for version in model.served if model.backend == "python" else ():
        folder = model.folder / str(version)
        for name, fault_of in FILES.get(_role(folder / "model.py"), {}).items():
            if not (folder / name).is_file():
                yield model.error(f"{version}/{name} is missing", SHIP_AGAIN)
            elif fault := fault_of(folder / name, model.config):
                yield model.error(f"{version}/{name} {fault}", SHIP_AGAIN)


def _role(code: Path) -> str:
    """Return the role of a model.py that this project wrote, such as tokenizer; an empty string for any other file."""
    try:
        first = code.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return first.removeprefix(FIRST_LINE).partition(" ")[0].rstrip(":") if first.startswith(FIRST_LINE) else ""


def _tokenizer(file: Path, config: Any) -> str | None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        return f"is not a tokenizer: {error}"
    return None


def _settings(file: Path, config: Any) -> str | None:
    """Compare the tensors in the settings with the tensors in the configuration; return the fault, or None."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        outputs = [one["name"] for one in settings["outputs"] if one["attribute"] and one["dtype"] and one["pad"] >= 0]
        named = {"input": list(settings["texts"]), "output": outputs}
        complete = min(settings["buckets"]) > 0 and settings["max_characters"] > 0
        complete = complete and {"split_special_tokens", "equal_length"} <= settings.keys()
    except (OSError, ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        return "lacks a setting that model.py reads"
    for side, names in named.items():
        wanted = sorted(one.name for one in getattr(config, side) if one.name != CUT)
        if sorted(names) != wanted:
            return f"has the {side}s {', '.join(names) or 'none'}, but its configuration has {', '.join(wanted)}"
    return None


def _labels(file: Path, config: Any) -> str | None:
    """Compare the number of labels with that of logits, if the model gives labels; return the fault, or None."""
    if (file.parent / "outputs.json").is_file():
        return None
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return "is not a list of labels"
    logits = next((one.dims[-1] for one in config.input if one.name == "logits" and one.dims), -1)
    return None if logits in (-1, len(labels)) else f"has {len(labels)} labels for {logits} logits"


def _graph(file: Path, config: Any) -> str | None:
    """Return None, which means no fault: engine.py checks the tensors of each graph."""
    return None


def _stages(file: Path, config: Any) -> str | None:
    """Check the settings of a cascade, and that a lexical stage has its files; return the fault, or None."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        complete = bool(found["name"]) and found["threshold"] >= 0 and found["vocabulary"] > 0
        named = {one["model"] for one in found["stages"].values() if one["inputs"] and min(one["buckets"]) > 0}
        complete = complete and "second" in found["stages"] and len(named) == len(found["stages"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        return "lacks a setting that model.py reads"
    lexical = () if "first" in found["stages"] else ("lexical.npz", "tfidf.py")
    missing = [name for name in lexical if not (file.parent / name).is_file()]
    return f"names a lexical stage, but {missing[0]} is missing" if missing else None


def stages(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the models to which a cascade sends rows are in the repository, and serve the cascade's versions."""
    for version in model.served if model.backend == "python" else ():
        file = model.folder / str(version) / "stages.json"
        if _role(file.with_name("model.py")) != "cascade" or _stages(file, model.config):
            continue
        for stage in json.loads(file.read_text(encoding="utf-8"))["stages"].values():
            other = models.get(stage["model"])
            if other is None or version not in other.served:
                yield model.error(
                    f"version {version} sends rows to {stage['model']}, which lacks this version", SHIP_AGAIN
                )
            elif other.config.max_batch_size < model.config.max_batch_size:
                yield model.error(
                    f"its max_batch_size is above the {other.config.max_batch_size} of {other.name}", SHIP_AGAIN
                )


# Role -> file that its model.py reads -> function that returns the fault of this file, or None.
FILES: dict[str, dict[str, Callable[[Path, Any], str | None]]] = {
    "tokenizer": {"tokenizer.json": _tokenizer, "settings.json": _settings},
    "classifier": {"model.onnx": _graph},
    "decoder": {"labels.json": _labels},
    "cascade": {"stages.json": _stages},
}

CHECKS: tuple[Check, ...] = (own_files, stages)
