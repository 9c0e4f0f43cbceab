"""Opens a language model for generation: a checkpoint in PyTorch, or the graph of a bundle in ONNX Runtime."""

import functools
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from toolchain.bundle import MANIFEST, Bundle, last_bundle, open_bundle
from toolchain.checkpoint.model import find_model, load_tokenizer
from toolchain.errors import UsageError
from toolchain.evaluation.target import find_checkpoint, recorded
from toolchain.generate.build import TASK, graph_name
from toolchain.generate.causal import open_torch
from toolchain.generate.decode_ort import Session, generate, open_graph
from toolchain.generate.generator import Generator
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues, flag
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.ort import has_gpu as ort_has_gpu
from toolchain.runtimes.pytorch import has_gpu

log = logging.getLogger(__name__)

# File name of a typed graph; the group is its precision.
TYPED = re.compile(r"model\.(\w+)\.onnx")

# Options for reading a checkpoint. They come from the command, not from the recipe that a bundle contains.
TRUST = ("allow_pickle", "trust_remote_code", "ignore_unused")


@dataclass(frozen=True)
class OpenedGraph:
    """A graph of a language model's bundle: its file, its precision, and its session."""

    bundle: Bundle
    file: str
    precision: str
    session: Session


def open_generator(place: str, recipe: Recipe, *, backend: str | None, cache: tuple[str, ...] = ()) -> Generator:
    """Open a checkpoint or a bundle. `backend` is `torch` or `ort`; None means `ort` for a bundle, else `torch`.

    Raises:
        UsageError: the backend cannot run it, or does not support one of the kinds in `cache`.
        ToolchainError: see errors.py.
    """
    if (Path(place) / MANIFEST).exists():
        bundle = open_lm(Path(place), trust=recipe.trust)
        if backend != "torch":
            return _on_ort(bundle, recipe, cache)
        source = find_checkpoint(bundle, recorded(bundle, {name: getattr(recipe, name) for name in TRUST}))
    else:
        if backend == "ort":
            raise UsageError(f"--backend ort: {place} is not a bundle. Build one first: toolchain build --task lm.")
        source = find_model(place, **{name: getattr(recipe, name) for name in TRUST})
    if recipe.file:
        raise UsageError(f"--file {recipe.file}: this option is only for a bundle on ort. Leave it out.")
    return open_torch(source, device=choose_device(recipe.device, cuda=has_gpu()))


def find_lm(place: Path | None, changes: RecipeValues) -> Path | None:
    """Return the bundle at `place`, or the one built last; None if it is not the bundle of a language model.

    If `place` is None and the options name a model, return None too.

    Raises:
        UsageError: the task is `lm`, but `place` is None.
        InputError: the bundle cannot be read.
    """
    if place is None and changes.get("task") == TASK:
        raise UsageError(
            f"--task {TASK}: no bundle is named. Name one, or build one first: toolchain build --task {TASK}."
        )
    if place is None and changes.get("model"):
        return None
    if place is not None and not (place / MANIFEST).is_file():
        return None  # an ONNX file, or a path that is refused later
    try:
        found = place or last_bundle(quiet=True)
    except UsageError:
        return None  # there is no bundle; a later check refuses this
    return found if open_bundle(found, check_files=False, lm=None).is_lm else None


def refuse_others(changes: RecipeValues, taken: Collection[str]) -> None:
    """Refuse options that do not apply to the bundle of a language model: all but those in `taken`.

    Raises:
        UsageError: such an option is given. The message names the first.
    """
    defaults = {field.name: field.default for field in fields(Recipe)}
    for name, value in changes.items():
        if name not in taken and value not in (None, defaults[name]):
            advice = " Measure it with `toolchain generate --energy`." if "energy" in name else " Leave it out."
            raise UsageError(f"{flag(name)}: this option is not for the bundle of a language model.{advice}")
    if changes.get("backend") not in (None, "ort"):
        raise UsageError(f"--backend {changes['backend']}: a language model's bundle runs on ort alone. Leave it out.")


def open_lm(place: Path, *, trust: str | None = None) -> Bundle:
    """Open the bundle of a language model, and check the digests of its text files; `open_file` checks its graphs.

    Raises:
        InputError, UsageError: see `open_bundle`.
    """
    bundle = open_bundle(place, trust=trust, check_files=False, lm=True)
    bundle.check(leaving=[name for name in bundle.manifest["artefacts"] if name not in bundle.texts])
    return bundle


def open_file(bundle: Bundle, file: str | None, *, device: str) -> OpenedGraph:
    """Open a graph of a bundle, and check its digest; with `file` None, the graph in the bundle's precision.

    Raises:
        UsageError: the file is not one of the bundle's graphs.
        InputError: the bundle lacks the file, or its digest differs.
        MachineError: the device is not available.
    """
    name = file or graph_name(bundle.manifest["precision"])
    if name in bundle.manifest["artefacts"] and name not in (graphs := bundle.manifest["lm"]["step_bytes"]):
        raise UsageError(f"--file {name}: this file is not a graph. Choose one of {', '.join(graphs)}.")
    path, place = bundle.file(name), choose_device(device, cuda=ort_has_gpu())
    digests = {one: digest for one, digest in bundle.manifest["artefacts"].items() if "/" not in one}
    return OpenedGraph(bundle, name, precision_of(name), open_graph(path, device=place, digests=digests))


def precision_of(file: str) -> str:
    """Return the precision of a graph: the one in its file name, or fp32 if the name has none."""
    typed = TYPED.fullmatch(file)
    return typed[1] if typed else "fp32"


def _on_ort(bundle: Bundle, recipe: Recipe, cache: tuple[str, ...]) -> Generator:
    if "static" in cache:
        raise UsageError(
            "--cache static: the cache of a bundle's graph grows with each step. Choose dynamic or none, or "
            "--backend torch."
        )
    opened = open_file(bundle, recipe.file, device=recipe.device)
    facts = bundle.manifest["lm"]
    if facts["not_followed"]:
        log.warning(
            "%s: its generation_config.json sets %s. Greedy search on a graph ignores these settings, so its text may "
            "differ from PyTorch's",
            bundle.path,
            ", ".join(facts["not_followed"]),
        )
    tokenizer = load_tokenizer(bundle.path, files={name: bundle.read(name) for name in bundle.texts})
    run = functools.partial(generate, opened.session, set(facts["end_ids"]))
    return Generator(
        str(bundle.path),
        "ort",
        opened.session.device,
        opened.precision,
        tokenizer,
        facts["positions"],
        facts["step_bytes"][opened.file],
        run,
    )
