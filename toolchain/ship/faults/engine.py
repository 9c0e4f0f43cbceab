"""Checks that a configuration agrees with its graph or plan, and that the warm-up can run."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.records.plan import ProfileRecord
from toolchain.records.ship import ShippedPlan
from toolchain.ship.config import dims_text, type_name
from toolchain.ship.faults import Check, Finding, LoadedModel, Models
from toolchain.ship.faults.model import required_files
from toolchain.ship.signature import Tensor, Tensors, from_json, signature

INTEGERS = {
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
}


def graph(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that the tensors of each ONNX graph match the configuration."""
    for version in model.served:
        folder = model.folder / str(version)
        for file in ("model.onnx",) if model.backend == "python" else required_files(model):
            if not (file.endswith(".onnx") and (folder / file).is_file()):
                continue
            try:
                inputs, outputs = signature(folder / file)
            except InputError as error:
                yield model.error(str(error).removesuffix(". Build the graph again."), "Build the graph again")
                continue
            yield from _same_tensors(model, f"{version}/{file}", inputs, outputs)


def plan(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check that each plan, as the record beside it states, has the configured tensors and takes all batches."""
    if model.backend != "tensorrt":
        return
    for version in model.served:
        for name in required_files(model):
            file = model.folder / str(version) / name
            if not file.is_file():
                continue
            record = _record(file)
            if record is None:
                yield model.warning(
                    f"{version}/{name} has no record beside it, so its tensors and profiles are not checked",
                    f"Copy plan.json of the bundle to {name}.json",
                )
                continue
            where = f"{version}/{name}"
            if "tensors" in record:
                inputs, outputs = from_json(record["tensors"]["inputs"]), from_json(record["tensors"]["outputs"])
                yield from _same_tensors(model, where, inputs, outputs)
            yield from _within_profiles(model, where, record["profiles"])


def _record(plan: Path) -> ShippedPlan | None:
    """Return the record beside a plan, or None if it is missing, broken or without profiles."""
    try:
        record: ShippedPlan = json.loads(plan.with_name(f"{plan.name}.json").read_text(encoding="utf-8"))
        return record if record["profiles"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same_tensors(model: LoadedModel, where: str, inputs: Tensors, outputs: Tensors) -> Iterator[Finding]:
    config = model.config
    for side, found, stated in (("input", inputs, config.input), ("output", outputs, config.output)):
        for tensor in stated:
            if tensor.name not in found:
                yield model.error(f"{where} has no {side} {tensor.name}; it has {', '.join(found)}", "Fix the name")
            else:
                yield from _same_tensor(model, f"{side} {tensor.name}", where, tensor, found[tensor.name])
    named = {tensor.name for tensor in config.input}
    if missing := [name for name in inputs if name not in named]:
        yield model.error(f"{where} needs the input {missing[0]}", "Add it to the configuration")


def _same_tensor(model: LoadedModel, what: str, where: str, stated: Any, found: Tensor) -> Iterator[Finding]:
    if type_name(stated.data_type) != found.type:
        yield model.error(
            f"{what} is {type_name(stated.data_type)}, but {where} has {found.type}", f"Write {found.type}"
        )
    batched = model.config.max_batch_size > 0
    if batched and found.dims[:1] not in ((-1,), ()):
        yield model.error(
            f"{what}: {where} takes batches of exactly {found.dims[0]} rows",
            "Export it with a dynamic batch, or set max_batch_size: 0",
        )
    own = found.dims[1:] if batched else found.dims
    dims = list(stated.reshape.shape) if stated.HasField("reshape") else list(stated.dims)
    fits = len(dims) == len(own) and all(size in (-1, asked) for asked, size in zip(dims, own, strict=True))
    if not fits and not (what.startswith("output") and len(dims) == len(own) and _covers(dims, own)):
        yield model.error(
            f"{what} has dims {dims_text(dims)}, but {where} has {dims_text(own)}"
            + (" after the batch" if batched else ""),
            f"Write {dims_text(own)}",
        )


def _covers(dims: Sequence[int], own: Sequence[int]) -> bool:
    """Return whether each stated dimension of an output is -1 (dynamic) or that of the graph."""
    return all(asked in (-1, size) for asked, size in zip(dims, own, strict=True))


def _within_profiles(model: LoadedModel, where: str, profiles: list[ProfileRecord]) -> Iterator[Finding]:
    """Check that batches, instances, warm-up and CUDA graphs fit the optimisation profiles of the plan."""
    config = model.config
    limit = min(one["batch"][2] for one in profiles)
    if config.max_batch_size > limit:
        yield model.error(
            f"max_batch_size {config.max_batch_size} is above the {limit} rows of {where}", f"Write {limit}"
        )
    for group in config.instance_group:
        chosen = [int(index) for index in group.profile if index.isdecimal()] or [0]
        if max(chosen) >= len(profiles):
            yield model.error(
                f"there is no profile {max(chosen)}: {where} has {len(profiles)} profiles", "Count from 0"
            )
        elif len(set(chosen)) < len(profiles):
            yield model.warning(
                f"its instances use {len(set(chosen))} of {len(profiles)} profiles of {where}, "
                "so requests of other lengths fail",
                "Name each profile in each instance group",
            )
    shapes = [
        ("model_warmup", one.batch_size, list(tensor.dims))
        for one in config.model_warmup
        for tensor in one.inputs.values()
    ]
    shapes += [
        ("graph_spec", one.batch_size, list(shape.dim))
        for one in config.optimization.cuda.graph_spec
        for shape in one.input.values()
    ]
    for what, rows, dims in shapes:
        if len(dims) == 1 and not any(_contains(one, max(rows, 1), dims[0]) for one in profiles):
            yield model.error(
                f"{what} has {rows} rows of {dims[0]} tokens, which no profile of {where} takes", "Change the shape"
            )
            return


def _contains(profile: ProfileRecord, rows: int, length: int) -> bool:
    (fewest, _, most), (shortest, _, longest) = profile["batch"], profile["length"]
    return fewest <= rows <= most and shortest <= length <= longest


def warmup(model: LoadedModel, models: Models) -> Iterator[Finding]:
    """Check the warm-up. If it fails, its model does not load, and by default the server does not start."""
    config = model.config
    inputs = {one.name: one for one in config.input}
    for one in config.model_warmup:
        if one.batch_size > max(1, config.max_batch_size):
            yield model.error(
                f"warm-up {one.name!r} has {one.batch_size} rows, but max_batch_size is {config.max_batch_size}",
                "Use at most that size",
            )
        if missing := [name for name, tensor in inputs.items() if name not in one.inputs and not tensor.optional]:
            yield model.error(f"warm-up {one.name!r} lacks the input {missing[0]}", "Add the input")
        for name, tensor in one.inputs.items():
            if name not in inputs:
                yield model.error(f"warm-up {one.name!r} has {name}, which is not an input", "Remove it")
            elif tensor.data_type != inputs[name].data_type:
                yield model.error(
                    f"warm-up {one.name!r}: {name} is {type_name(tensor.data_type)}, but the input is "
                    f"{type_name(inputs[name].data_type)}",
                    "Write the same type",
                )
            if tensor.random_data and type_name(tensor.data_type) in INTEGERS:
                yield model.error(
                    f"warm-up {one.name!r} fills {name} with random ids, which lie outside any vocabulary, so the "
                    "model does not load",
                    "Write zero_data: true",
                )
            if tensor.input_data_file and not (model.folder / "warmup" / tensor.input_data_file).is_file():
                yield model.error(f"warmup/{tensor.input_data_file} is missing", "Add the file")


CHECKS: tuple[Check, ...] = (graph, plan, warmup)
