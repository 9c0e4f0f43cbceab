"""Checks between the models of an ensemble: tensors that do not match, and batches that are too large."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolchain.base.files import sha256_file
from toolchain.ship.config import dims_text, type_name
from toolchain.ship.faults import Check, Finding, LoadedModel, Models
from toolchain.ship.models import PROVENANCE, names


@dataclass(frozen=True)
class Producer:
    """Where a tensor of an ensemble comes from: a model or `the request`, with the tensor as it is configured there."""

    name: str
    tensor: Any


def connections(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that each tensor of an ensemble has a producer, and that its consumers expect its type and dimensions."""
    if not model.config.HasField("ensemble_scheduling"):
        if model.backend == "ensemble":
            yield model.error("the ensemble has no steps", "Add ensemble_scheduling")
        return
    produced = {one.name: Producer("the request", one) for one in model.config.input}
    for step in model.config.ensemble_scheduling.step:
        yield from _step(model, step, models)
    steps = [step for step in model.config.ensemble_scheduling.step if step.model_name in models]
    for step in steps:
        yield from _outputs(model, step, models[step.model_name], produced)
    for step in steps:
        yield from _inputs(model, step, models[step.model_name], produced)
    consumed = {tensor for step in steps for tensor in step.input_map.values()}
    for output in model.config.output:
        if output.name in consumed and output.name in produced:
            yield model.error(
                f"the output {output.name} is also the input of a step, so a request for other outputs alone fails "
                "(Triton server issue 7482)",
                "Let the last step output a copy of the tensor, and map the output to that copy",
            )
        if output.name not in produced:
            yield model.error(f"no step produces the output {output.name}", "Map an output of a step to it")
        else:
            yield from _matches(model, output.name, produced[output.name], output, "its configuration")


def _step(model: LoadedModel, step: Any, models: Models) -> Iterator[Finding]:
    if step.model_name not in models:
        yield model.error(
            f"step {step.model_name!r} is not a model of this repository", "Add the model, or fix the name"
        )
        return
    other = models[step.model_name]
    if step.model_version > 0 and step.model_version not in other.served:
        yield model.error(
            f"it uses version {step.model_version} of {other.name}, which serves "
            f"{', '.join(map(str, other.served)) or 'none'}",
            "Fix model_version",
        )
    limit, own = other.config.max_batch_size, model.config.max_batch_size
    if own > limit:
        yield model.error(f"max_batch_size {own} is above the {limit} of {other.name}", f"Write {limit}")


def _outputs(model: LoadedModel, step: Any, other: LoadedModel, produced: dict[str, Producer]) -> Iterator[Finding]:
    """Check the outputs of a step and add them to `produced`."""
    outputs = {one.name: one for one in other.config.output}
    for key, tensor in step.output_map.items():
        if key not in outputs:
            yield model.error(f"{other.name} has no output {key}", f"Choose from {', '.join(outputs)}")
        elif tensor in produced:
            yield model.error(f"both {produced[tensor].name} and {other.name} produce {tensor}", "Rename one")
        else:
            produced[tensor] = Producer(other.name, outputs[key])


def _inputs(model: LoadedModel, step: Any, other: LoadedModel, produced: dict[str, Producer]) -> Iterator[Finding]:
    inputs = {one.name: one for one in other.config.input}
    for key, tensor in step.input_map.items():
        if key not in inputs:
            yield model.error(f"{other.name} has no input {key}", f"Choose from {', '.join(inputs)}")
        elif tensor not in produced:
            yield model.error(f"{other.name} takes {tensor}, which no step produces", "Map an output of a step to it")
        else:
            yield from _matches(model, tensor, produced[tensor], inputs[key], other.name)
    if missing := [name for name, one in inputs.items() if name not in step.input_map and not one.optional]:
        yield model.error(
            f"{other.name} needs the input {missing[0]}, which its step does not map", "Add it to input_map"
        )


def _matches(model: LoadedModel, name: str, producer: Producer, taken: Any, consumer: str) -> Iterator[Finding]:
    """Compare the type and the dimensions of a tensor between its producer and a consumer."""
    types = type_name(producer.tensor.data_type), type_name(taken.data_type)
    if types[0] != types[1]:
        yield model.error(
            f"{name} is {types[0]} from {producer.name} and {types[1]} in {consumer}", "Write the same type"
        )
    dims = list(producer.tensor.dims), list(taken.dims)
    fits = len(dims[0]) == len(dims[1]) and all(
        one == other or -1 in (one, other) for one, other in zip(*dims, strict=True)
    )
    if not fits:
        yield model.error(
            f"{name} has dims {dims_text(dims[0])} from {producer.name} and {dims_text(dims[1])} in {consumer}",
            "Write the same dims",
        )


def provenance(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Compare the digests of the engine files with the ones that were recorded when the bundle was shipped."""
    own = {role: models[name] for role, name in names(model.name).items() if name in models}
    for version in model.served if "classifier" in own else ():
        try:
            record = json.loads((model.folder / str(version) / PROVENANCE).read_text(encoding="utf-8"))
            shipped = [(own["classifier"], record["files"])]
            if "first_files" in record:
                shipped.append((own.get("first") or own["cascade"], record["first_files"]))
            listed = [(one, name, file["sha256"]) for one, files in shipped for name, file in files.items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for one, name, digest in listed:
            file = one.folder / str(version) / name
            if not file.is_file():
                yield one.error(f"{version}/{name} is missing", "Ship the bundle again")
            elif sha256_file(file) != digest:
                yield one.error(f"{version}/{name} is not the file that was shipped", "Ship the bundle again")


CHECKS: tuple[Check, ...] = (connections, provenance)
