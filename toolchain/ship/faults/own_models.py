"""Faults of the python models that we write ourselves: the files that each reads when it starts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolchain.ship.faults import Check, Finding, Loaded, Models

HEAD = '"""Triton\'s model NAME_'
"""What model.py of ours begins with, before its role."""

SHIP = "Ship the bundle again"


def reads(model: Loaded, models: Models) -> Iterator[Finding]:
    """What a model of ours reads is there, and is what it can read."""
    for version in model.served if model.backend == "python" else ():
        folder = model.folder / str(version)
        for name, fault in READS.get(_role(folder / "model.py"), {}).items():
            if not (folder / name).is_file():
                yield model.error(f"{version}/{name} is missing", SHIP)
            elif what := fault(folder / name, model.config):
                yield model.error(f"{version}/{name} {what}", SHIP)


def _role(code: Path) -> str:
    """Return the role that model.py of ours has, or "" for another's."""
    try:
        first = code.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return first.removeprefix(HEAD).partition(" ")[0].rstrip(":") if first.startswith(HEAD) else ""


def _tokenizer(file: Path, config: Any) -> str | None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        return f"is no tokenizer: {error}"
    return None


def _settings(file: Path, config: Any) -> str | None:
    """Compare the tensors that the settings name with those of the configuration."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        outputs = [one["name"] for one in found["outputs"] if one["attribute"] and one["dtype"] and one["pad"] >= 0]
        named = {"input": list(found["texts"]), "output": outputs}
        whole = min(found["buckets"]) > 0 and found["max_characters"] > 0
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        return "is not what model.py reads"
    for what, names in named.items():
        wanted = sorted(one.name for one in getattr(config, what))
        if sorted(names) != wanted:
            return f"has the {what}s {', '.join(names) or 'none'}, and its configuration {', '.join(wanted)}"
    return None


def _labels(file: Path, config: Any) -> str | None:
    """Compare the labels with the logits that they are for."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return "is no list of labels"
    logits = next((one.dims[-1] for one in config.input if one.name == "logits" and one.dims), -1)
    return None if logits in (-1, len(labels)) else f"has {len(labels)} labels, and there are {logits} logits"


def _graph(file: Path, config: Any) -> str | None:
    """Leave its tensors to engine.py, which looks into every graph."""
    return None


READS: dict[str, dict[str, Callable[[Path, Any], str | None]]] = {
    "tokenizer": {"tokenizer.json": _tokenizer, "settings.json": _settings},
    "classifier": {"model.onnx": _graph},
    "decoder": {"labels.json": _labels},
}
"""Role -> the files that its model.py reads -> what says the fault of one, if it has any."""

CHECKS: tuple[Check, ...] = (reads,)
