"""Faults of one model by itself: its folder, its tensors, its instances, its queue."""

import ast
import re
from collections.abc import Iterator

from toolchain.ship.faults import Check, Finding, Loaded, Models

FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py", "pytorch": "model.pt"}
"""The file that each backend opens where the configuration names none."""


def name(model: Loaded, models: Models) -> Iterator[Finding]:
    """The name is the folder's, and something runs it."""
    stated = model.config.name
    if stated and stated != model.name:
        yield model.error(f"its configuration says {stated!r}", "Name both alike")
    if not model.backend:
        yield model.error("neither backend nor platform", 'Say what runs it, such as backend: "onnxruntime"')


def versions(model: Loaded, models: Models) -> Iterator[Finding]:
    """Each version that is to be served has a folder with what the backend opens."""
    if not model.there:
        yield model.error("no folder of a version", "Put its files into a folder 1")
    for version in model.served:
        if version not in model.there:
            yield model.error(f"version {version} is to be served and is not there", "Mend its version_policy")
        elif model.backend != "ensemble":
            for file in files(model):
                if not (model.folder / str(version) / file).exists():
                    yield model.error(f"{version}/{file} is missing", "Put it there, or mend the configuration")


def files(model: Loaded) -> list[str]:
    """Return the files that a version must have."""
    named = [model.config.default_model_filename or FILES.get(model.backend, "")]
    return sorted({*filter(None, named), *model.config.cc_model_filenames.values()})


def code(model: Loaded, models: Models) -> Iterator[Finding]:
    """A python model can be parsed, and has the class that Triton looks for."""
    for version in model.served if model.backend == "python" else ():
        file = model.folder / str(version) / (model.config.default_model_filename or "model.py")
        if not file.is_file():
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            yield model.error(f"{version}/{file.name} is no Python: {error}", "Mend it")
            continue
        if not any(isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel" for node in tree.body):
            yield model.error(f"{version}/{file.name} has no class TritonPythonModel", "Add it")


def numpy(model: Loaded, models: Models) -> Iterator[Finding]:
    """Up to 24.10 the python backend says that it is ready, and fails at every request where numpy is 2."""
    file = model.folder / "requirements.txt"
    if model.backend == "python" and file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        if not re.search(r"^numpy\b.*(<\s*2|==\s*1\.|~=\s*1\.)", text, re.MULTILINE):
            yield model.warning(
                "requirements.txt lets numpy 2 in, with which Triton up to 24.10 is ready and answers nothing",
                "Add the line numpy<2",
            )


def tensors(model: Loaded, models: Models) -> Iterator[Finding]:
    """Every tensor has a name of its own, a type and dimensions."""
    for what in ("input", "output"):
        seen: set[str] = set()
        for one in getattr(model.config, what):
            if one.name in seen or not one.name:
                yield model.error(f"{what} {one.name!r} twice or without a name", "Name each once")
            if not one.data_type:
                yield model.error(f"{what} {one.name}: no data_type", "Give it, such as TYPE_INT32")
            if not one.dims and not one.HasField("reshape"):
                yield model.error(f"{what} {one.name}: no dims", "Give them without the batch, such as [ -1 ]")
            if any(size == 0 or size < -1 for size in one.dims):
                yield model.error(f"{what} {one.name}: dims {list(one.dims)}", "Give sizes above 0, or -1")
            seen.add(one.name)


KIND_GPU = 1


def instances(model: Loaded, models: Models) -> Iterator[Finding]:
    """Instances are where they can be; an ensemble has none."""
    groups = model.config.instance_group
    if model.backend == "ensemble":
        if groups:
            yield model.error("an ensemble has no instances of its own", "Leave instance_group out")
        return
    if any(group.kind == KIND_GPU for group in groups):
        yield model.warning(
            "KIND_GPU does not load where that GPU is absent, not even to be tested",
            "Write KIND_AUTO, or leave kind out",
        )


def batching(model: Loaded, models: Models) -> Iterator[Finding]:
    """The queue has an end, and a batcher has something to batch."""
    if not model.config.HasField("dynamic_batching"):
        return
    batcher, most = model.config.dynamic_batching, model.config.max_batch_size
    if most <= 1:
        yield model.warning(
            f"dynamic_batching with max_batch_size {most} merges nothing; a delay only costs time",
            "Raise max_batch_size, or leave dynamic_batching out",
        )
    large = [size for size in batcher.preferred_batch_size if size > most]
    if large and most > 0:
        yield model.error(f"preferred_batch_size {large[0]} is above max_batch_size {most}", "Give that or less")
    if not batcher.default_queue_policy.max_queue_size:
        yield model.warning(
            "its queue has no end, so an overload makes every request late",
            "Set default_queue_policy { max_queue_size: 256 }",
        )


def cache(model: Loaded, models: Models) -> Iterator[Finding]:
    """The cache stands where servers look for it."""
    if model.backend == "ensemble" and model.config.response_cache.enable:
        yield model.warning(
            "a cache on an ensemble is not read by older servers", "Set response_cache on the model that computes"
        )


CHECKS: tuple[Check, ...] = (name, versions, code, numpy, tensors, instances, batching, cache)
