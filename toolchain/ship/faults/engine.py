"""Faults between a configuration and the graph or plan that it is for, and in the warm-up of both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.ship.faults import Check, Finding, Loaded, Models, listed, type_name
from toolchain.ship.faults.model import files
from toolchain.ship.signature import Tensor, Tensors, from_json, signature

Profile = dict[str, list[int]]


def graph(model: Loaded, models: Models) -> Iterator[Finding]:
    """Each ONNX graph takes and gives what the configuration says."""
    for version in model.served:
        folder = model.folder / str(version)
        for file in ("model.onnx",) if model.backend == "python" else files(model):
            if not (file.endswith(".onnx") and (folder / file).is_file()):
                continue
            try:
                takes, gives = signature(folder / file)
            except InputError as error:
                yield model.error(str(error).removesuffix(". Build it again."), "Build it again")
                continue
            yield from _agree(model, f"{version}/{file}", takes, gives)


def plan(model: Loaded, models: Models) -> Iterator[Finding]:
    """Each plan, by the record beside it, takes what the configuration says and every batch that it allows."""
    if model.backend != "tensorrt":
        return
    for version in model.served:
        for file in files(model):
            place = model.folder / str(version) / file
            if not place.is_file():
                continue
            record = _record(place)
            if record is None:
                yield model.warning(
                    f"nothing beside {version}/{file} says what it takes, so that is not checked",
                    f"Keep the bundle's plan.json as {file}.json",
                )
                continue
            where = f"{version}/{file}"
            if "tensors" in record:
                takes, gives = (from_json(record["tensors"][what]) for what in ("inputs", "outputs"))
                yield from _agree(model, where, takes, gives)
            yield from _within(model, where, record["profiles"])


def _record(plan: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(plan.with_name(f"{plan.name}.json").read_text(encoding="utf-8"))
        return record if record["profiles"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _agree(model: Loaded, where: str, takes: Tensors, gives: Tensors) -> Iterator[Finding]:
    config = model.config
    for what, found, stated in (("input", takes, config.input), ("output", gives, config.output)):
        for one in stated:
            if one.name not in found:
                yield model.error(f"{where} has no {what} {one.name}, but {', '.join(found)}", "Mend its name")
            else:
                yield from _same(model, f"{what} {one.name}", where, one, found[one.name])
    named = {one.name for one in config.input}
    if missing := [name for name in takes if name not in named]:
        yield model.error(f"{where} needs the input {missing[0]}", "Add it to the configuration")


def _same(model: Loaded, what: str, where: str, stated: Any, found: Tensor) -> Iterator[Finding]:
    if type_name(stated.data_type) != found.type:
        yield model.error(f"{what} is {type_name(stated.data_type)}, in {where} {found.type}", f"Write {found.type}")
    batched = model.config.max_batch_size > 0
    if batched and found.dims[:1] not in ((-1,), ()):
        yield model.error(
            f"{what}: {where} takes batches of {found.dims[0]} rows alone",
            "Export it with a free batch, or set max_batch_size: 0",
        )
    own = found.dims[1:] if batched else found.dims
    dims = list(stated.reshape.shape) if stated.HasField("reshape") else list(stated.dims)
    fits = len(dims) == len(own) and all(size in (-1, asked) for asked, size in zip(dims, own, strict=True))
    if not fits and not (what.startswith("output") and len(dims) == len(own) and _free(dims, own)):
        yield model.error(
            f"{what} has dims {listed(dims)}, in {where} {listed(own)}" + (" behind the batch" if batched else ""),
            f"Write {listed(own)}",
        )


def _free(dims: list[int], own: tuple[int, ...]) -> bool:
    """An output may be said to be freer than it is."""
    return all(asked in (-1, size) for asked, size in zip(dims, own, strict=True))


def _within(model: Loaded, where: str, profiles: list[Profile]) -> Iterator[Finding]:
    """Batches, instances, warm-up and CUDA graphs stay within the plan's profiles."""
    config = model.config
    most = min(one["batch"][2] for one in profiles)
    if config.max_batch_size > most:
        yield model.error(f"max_batch_size {config.max_batch_size}, and {where} takes {most} rows", f"Write {most}")
    for group in config.instance_group:
        chosen = [int(index) for index in group.profile if index.isdecimal()] or [0]
        if max(chosen) >= len(profiles):
            yield model.error(f"profile {max(chosen)}, and {where} has {len(profiles)}", "Count them from 0")
        elif len(set(chosen)) < len(profiles):
            yield model.warning(
                f"instances have {len(set(chosen))} of {len(profiles)} profiles of {where}: other lengths fail",
                "Name every profile in each instance group",
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
        if len(dims) == 1 and not any(_takes(one, max(rows, 1), dims[0]) for one in profiles):
            yield model.error(f"{what} of {rows} rows of {dims[0]} tokens: no profile of {where} has it", "Change it")
            return


def _takes(profile: Profile, rows: int, length: int) -> bool:
    (fewest, _, most), (shortest, _, longest) = profile["batch"], profile["length"]
    return fewest <= rows <= most and shortest <= length <= longest


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


def warmup(model: Loaded, models: Models) -> Iterator[Finding]:
    """A warm-up that fails keeps its model from loading, and by default the server from starting."""
    config = model.config
    inputs = {one.name: one for one in config.input}
    for one in config.model_warmup:
        if one.batch_size > max(1, config.max_batch_size):
            yield model.error(
                f"warm-up {one.name!r} has {one.batch_size} rows, and max_batch_size is {config.max_batch_size}",
                "Give that or less",
            )
        if missing := [name for name, tensor in inputs.items() if name not in one.inputs and not tensor.optional]:
            yield model.error(f"warm-up {one.name!r} lacks the input {missing[0]}", "Add it")
        for name, tensor in one.inputs.items():
            if name not in inputs:
                yield model.error(f"warm-up {one.name!r} has {name}, which is no input", "Leave it out")
            elif tensor.data_type != inputs[name].data_type:
                yield model.error(
                    f"warm-up {one.name!r}: {name} is {type_name(tensor.data_type)}, the input "
                    f"{type_name(inputs[name].data_type)}",
                    "Write the same",
                )
            if tensor.random_data and type_name(tensor.data_type) in INTEGERS:
                yield model.error(
                    f"warm-up {one.name!r} fills {name} at random: ids that no vocabulary has, so the "
                    "model does not load",
                    "Write zero_data: true",
                )
            if tensor.input_data_file and not (model.folder / "warmup" / tensor.input_data_file).is_file():
                yield model.error(f"warmup/{tensor.input_data_file} is missing", "Put it there")


CHECKS: tuple[Check, ...] = (graph, plan, warmup)
