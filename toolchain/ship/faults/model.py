"""Checks of one model: its folder, tensors, instances and queue."""

import ast
import re
from collections.abc import Iterator

from toolchain.ship.config import InstanceGroup
from toolchain.ship.faults import Check, Finding, LoadedModel, Models

# Backend -> the file that it opens if the configuration names none.
DEFAULT_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py", "pytorch": "model.pt"}


def name(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the configuration names a backend, and that the model's name in it, if any, is the folder's name."""
    stated = model.config.name
    if stated and stated != model.name:
        yield model.error(
            f"its configuration has the name {stated!r}", "Give the folder and the configuration the same name"
        )
    if not model.backend:
        yield model.error("neither backend nor platform is set", 'Set the backend, for example backend: "onnxruntime"')


def versions(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that each version to be served has a folder with the files that the backend opens."""
    if not model.present:
        yield model.error("it has no version folder", "Put its files into a folder named 1")
    for version in model.served:
        if version not in model.present:
            yield model.error(f"version {version} is to be served, but has no folder", "Fix its version_policy")
        elif model.backend != "ensemble":
            for file in required_files(model):
                if not (model.folder / str(version) / file).exists():
                    yield model.error(f"{version}/{file} is missing", "Add the file, or fix the configuration")


def required_files(model: LoadedModel) -> list[str]:
    """Return the names of the files that each version must have."""
    named = [model.config.default_model_filename or DEFAULT_FILES.get(model.backend, "")]
    return sorted({*filter(None, named), *model.config.cc_model_filenames.values()})


def code(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the code of a Python model parses and defines the class that Triton loads."""
    for version in model.served if model.backend == "python" else ():
        file = model.folder / str(version) / (model.config.default_model_filename or "model.py")
        if not file.is_file():
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            yield model.error(f"{version}/{file.name} is not valid Python: {error}", "Fix the file")
            continue
        if not any(isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel" for node in tree.body):
            yield model.error(f"{version}/{file.name} has no class TritonPythonModel", "Add the class")


def numpy(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that a Python model pins numpy below 2.

    Up to Triton 24.10, the python backend reports ready with numpy 2 and then fails on each request.
    """
    file = model.folder / "requirements.txt"
    if model.backend == "python" and file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        if not re.search(r"^numpy\b.*(<\s*2|==\s*1\.|~=\s*1\.)", text, re.MULTILINE):
            yield model.warning(
                "requirements.txt allows numpy 2, with which Triton up to 24.10 reports ready and fails on each "
                "request",
                "Add the line numpy<2",
            )


def tensors(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that each tensor has a unique name, a type and valid dimensions."""
    for side in ("input", "output"):
        seen: set[str] = set()
        for tensor in getattr(model.config, side):
            if tensor.name in seen or not tensor.name:
                yield model.error(f"{side} {tensor.name!r} appears twice or has no name", "Give each a unique name")
            if not tensor.data_type:
                yield model.error(f"{side} {tensor.name} has no data_type", "Add it, such as TYPE_INT32")
            if not tensor.dims and not tensor.HasField("reshape"):
                yield model.error(f"{side} {tensor.name} has no dims", "Add them without the batch, such as [ -1 ]")
            if any(size == 0 or size < -1 for size in tensor.dims):
                yield model.error(f"{side} {tensor.name} has dims {list(tensor.dims)}", "Use sizes above 0, or -1")
            seen.add(tensor.name)


def instances(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that an ensemble has no instances, and that no model can be loaded only on a GPU."""
    groups = model.config.instance_group
    if model.backend == "ensemble":
        if groups:
            yield model.error("an ensemble cannot have instances", "Remove instance_group")
        return
    if any(group.kind == InstanceGroup.KIND_GPU for group in groups):
        yield model.warning(
            "an instance group of KIND_GPU does not load on a machine without a GPU, not even for a test",
            "Write KIND_AUTO, or remove kind",
        )


def batching(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the queue is bounded and that the batcher can merge requests."""
    if not model.config.HasField("dynamic_batching"):
        return
    batcher, max_batch = model.config.dynamic_batching, model.config.max_batch_size
    if max_batch <= 1:
        yield model.warning(
            f"dynamic_batching with max_batch_size {max_batch} merges nothing, so a delay only adds latency",
            "Raise max_batch_size, or remove dynamic_batching",
        )
    too_large = [size for size in batcher.preferred_batch_size if size > max_batch]
    if too_large and max_batch > 0:
        yield model.error(
            f"preferred_batch_size {too_large[0]} is above max_batch_size {max_batch}", "Use at most that size"
        )
    if not batcher.default_queue_policy.max_queue_size:
        yield model.warning(
            "its queue is unbounded, so an overload delays each request",
            "Set default_queue_policy { max_queue_size: 256 }",
        )


def cache(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the response cache is set on a model and not on the ensemble."""
    if model.backend == "ensemble" and model.config.response_cache.enable:
        yield model.warning(
            "older servers ignore a response cache on an ensemble", "Set response_cache on the model that computes"
        )


CHECKS: tuple[Check, ...] = (name, versions, code, numpy, tensors, instances, batching, cache)
