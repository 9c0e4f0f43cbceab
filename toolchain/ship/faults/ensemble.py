"""Faults between the models of an ensemble: tensors that do not join, types that differ, batches that are too large."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolchain.files import sha256_file
from toolchain.ship.faults import Check, Finding, Loaded, Models, listed, type_name
from toolchain.ship.models import PROVENANCE, names


@dataclass(frozen=True)
class Source:
    """Where a tensor of an ensemble comes from."""

    origin: str
    tensor: Any


def joints(model: Loaded, models: Models) -> Iterator[Finding]:
    """Follow every tensor from where it is made to where it is taken."""
    if not model.config.HasField("ensemble_scheduling"):
        if model.backend == "ensemble":
            yield model.error("an ensemble without steps", "Add ensemble_scheduling")
        return
    made = {one.name: Source("the request", one) for one in model.config.input}
    for step in model.config.ensemble_scheduling.step:
        yield from _step(model, step, models)
    steps = [step for step in model.config.ensemble_scheduling.step if step.model_name in models]
    for step in steps:
        yield from _outputs(model, step, models[step.model_name], made)
    for step in steps:
        yield from _inputs(model, step, models[step.model_name], made)
    taken = {tensor for step in steps for tensor in step.input_map.values()}
    for output in model.config.output:
        if output.name in taken and output.name in made:
            yield model.error(
                f"the output {output.name} is a step's input too: who asks for other outputs alone gets "
                "an error (server issue 7482)",
                "Let the last step pass it on",
            )
        if output.name not in made:
            yield model.error(f"no step makes the output {output.name}", "Map a step's output to it")
        else:
            yield from _same(model, output.name, made[output.name], output, "its configuration")


def _step(model: Loaded, step: Any, models: Models) -> Iterator[Finding]:
    if step.model_name not in models:
        yield model.error(f"step {step.model_name!r} is no model of this repository", "Put it there, or mend its name")
        return
    other = models[step.model_name]
    if step.model_version > 0 and step.model_version not in other.served:
        yield model.error(
            f"takes version {step.model_version} of {other.name}, which serves "
            f"{', '.join(map(str, other.served)) or 'none'}",
            "Mend model_version",
        )
    most, own = other.config.max_batch_size, model.config.max_batch_size
    if own > most:
        yield model.error(f"max_batch_size {own}, and {other.name} takes {most} rows", f"Write {most}")


def _outputs(model: Loaded, step: Any, other: Loaded, made: dict[str, Source]) -> Iterator[Finding]:
    """Add to `made` what a step makes."""
    outputs = {one.name: one for one in other.config.output}
    for key, tensor in step.output_map.items():
        if key not in outputs:
            yield model.error(f"{other.name} has no output {key}", f"Choose from {', '.join(outputs)}")
        elif tensor in made:
            yield model.error(f"{tensor} is made by {made[tensor].origin} and by {other.name}", "Rename one")
        else:
            made[tensor] = Source(other.name, outputs[key])


def _inputs(model: Loaded, step: Any, other: Loaded, made: dict[str, Source]) -> Iterator[Finding]:
    inputs = {one.name: one for one in other.config.input}
    for key, tensor in step.input_map.items():
        if key not in inputs:
            yield model.error(f"{other.name} has no input {key}", f"Choose from {', '.join(inputs)}")
        elif tensor not in made:
            yield model.error(f"{other.name} takes {tensor}, which nothing makes", "Map a step's output to it")
        else:
            yield from _same(model, tensor, made[tensor], inputs[key], other.name)
    if missing := [name for name, one in inputs.items() if name not in step.input_map and not one.optional]:
        yield model.error(f"{other.name} needs {missing[0]}, and its step maps nothing to it", "Add it to input_map")


def _same(model: Loaded, name: str, source: Source, taken: Any, taker: str) -> Iterator[Finding]:
    types = type_name(source.tensor.data_type), type_name(taken.data_type)
    if types[0] != types[1]:
        yield model.error(f"{name} is {types[0]} from {source.origin} and {types[1]} in {taker}", "Write the same type")
    dims = list(source.tensor.dims), list(taken.dims)
    fits = len(dims[0]) == len(dims[1]) and all(
        one == other or -1 in (one, other) for one, other in zip(*dims, strict=True)
    )
    if not fits:
        yield model.error(
            f"{name} has dims {listed(dims[0])} from {source.origin} and {listed(dims[1])} in {taker}",
            "Write the same dims",
        )


def provenance(model: Loaded, models: Models) -> Iterator[Finding]:
    """The engine of an ensemble that we made is still the one that we put there."""
    classifier = models.get(names(model.name)["classifier"])
    if classifier is None:
        return
    for version in model.served:
        try:
            shipped = json.loads((model.folder / str(version) / PROVENANCE).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for name, file in shipped.items():
            place = classifier.folder / str(version) / name
            if not place.is_file():
                yield classifier.error(f"{version}/{name} is missing", "Ship the bundle again")
            elif sha256_file(place) != file["sha256"]:
                yield classifier.error(f"{version}/{name} is not the file that was shipped", "Ship the bundle again")


CHECKS: tuple[Check, ...] = (joints, provenance)
