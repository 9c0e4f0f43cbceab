"""The target of a run: which file of a bundle runs, on which backend and device. Only this module decides that.

`find_target` reads the bundle or checkpoint once and returns plain data. `eval`, `compare`, `verify`, `profile`,
`serve`, `clocks` and `cascade` begin with it; the export to Triton uses only `choose_graph`, `plans` and `recorded`.
"""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toolchain.base.files import sha256_json
from toolchain.bundle import RESULTS, Bundle, last_bundle, open_bundle
from toolchain.bundle.machine import find_machine
from toolchain.bundle.resolved_recipe import ResolvedRecipe, bundled, check_described, resolve, resolve_bundle
from toolchain.checkpoint.model import Source, find_model
from toolchain.checkpoint.tokenize import Encode, RemoteTexts
from toolchain.engine.plan import RECORD, check_plan, find_plan, is_plan, plan_backend, plans_of
from toolchain.errors import InputError, MachineError, ToolchainError, UsageError
from toolchain.evaluation.conflicts import refuse_fixed, refuse_options
from toolchain.graph import file_has_halves
from toolchain.recipe import Recipe
from toolchain.recipe.options import CONSENT, RecipeValues, flag
from toolchain.recipe.tables import ATTENTIONS, BACKENDS, imported
from toolchain.records.result import ArtefactDigest
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.environment import cpu_flags
from toolchain.runtimes.remote import Server

log = logging.getLogger(__name__)

EVAL_RESULTS = Path("eval/results")

# File with the digests of the rows that `tune` evaluated its choices on, in the folder of a bundle's results.
CHOSEN_ROWS = "tune/rows.json"

# Options that are not read from a bundle, which may come from somebody else: consent, and where a token is sent.
PERSONAL = (*CONSENT, "url", "token_file")


@dataclass(frozen=True)
class Target:
    """One model on one backend and device.

    `file` is the name of the artefact that runs; None for a checkpoint or a server. `model` is passed to the runtime.
    `graph` is the ONNX graph with the model's operations; None for a server, or for a checkpoint without a bundle.
    """

    resolved: ResolvedRecipe
    bundle: Bundle | None
    backend: str
    device: str
    precision: str
    variant: str
    file: str | None
    model: Source | Path | Server
    graph: Path | None
    artefact: ArtefactDigest

    @property
    def remote(self) -> bool:
        """Whether the model runs in a server, so that its memory and energy cannot be measured here."""
        return isinstance(self.model, Server)

    @property
    def is_reference(self) -> bool:
        """Whether this is the FP32 reference itself: the checkpoint on the CPU, with no option that changes it."""
        return (self.backend, self.variant, self.device) == ("torch", "fp32", "cpu")

    @property
    def encode(self) -> Encode:
        """The function that turns texts into the input of the runtime: tokens, or for a server the texts themselves."""
        return functools.partial(RemoteTexts, encode=self.resolved.encode) if self.remote else self.resolved.encode

    @property
    def choices(self) -> dict[str, Any]:  # each backend has other arguments
        """The keyword arguments for `open_runtime`, which differ between backends."""
        recipe = self.resolved.recipe
        attention = _attention(self.backend, recipe)
        pinned = recipe.trust is not None and BACKENDS[self.backend].runs == "plan"
        given = {
            "digests": self.digests,
            "cuda_graphs": recipe.cuda_graphs,
            "compiled": recipe.compile,
            "attention": attention,
            "halves": recipe.halves,
            "pinned": pinned,
        }
        return {"device": self.device, "precision": self.precision} | {key: one for key, one in given.items() if one}

    @property
    def digests(self) -> dict[str, str]:
        """Name -> SHA-256 of each file in the model's folder, for the runtime to check; empty if it checks no file."""
        if self.bundle is None or self.file is None or not BACKENDS[self.backend].checks:
            return {}
        place, listed = Path(self.file).parent, self.bundle.manifest["artefacts"].items()
        return {Path(name).name: digest for name, digest in listed if Path(name).parent == place}

    @property
    def folder(self) -> Path:
        """The folder into which `eval` writes the target's results."""
        return self.bundle.path / RESULTS if self.bundle else EVAL_RESULTS


class Reference(NamedTuple):
    """The FP32 model that a target is compared with: its name in a result, its backend, and the model to open."""

    name: str
    backend: str
    model: Source | Path


def find_target(changes: RecipeValues, path: Path | None, *, prefer_plan: bool = False, runs: bool = False) -> Target:
    """Return the target that the options name, in the bundle at `path` or else in the bundle that was built last.

    `changes` are the user's options by their names in a recipe; all other values come from the bundle's recipe. If
    `path` is None and `model` is given, torch runs that checkpoint, and other backends run the bundle that was built
    from it. With `prefer_plan`, a call that names neither backend nor file gets the bundle's plan if this machine can
    run it. All files of the bundle are compared with their digests. With `runs`, the files of the target are left out,
    because the caller opens it with `choices`, and the runtime then checks these files.

    Raises:
        ToolchainError: see errors.py.
    """
    try:
        target = _find_target(changes, path, prefer_plan=prefer_plan)
    except MachineError:
        if path:
            open_bundle(path)  # if the bundle is damaged, say so: another machine would not help
        raise
    if target.bundle:
        read = {target.file, f"{target.file}.data", str(Path(str(target.file)).with_name(RECORD))}
        target.bundle.check(leaving={*target.bundle.texts, *(read if runs and target.digests else ())})
    return target


def _find_target(changes: RecipeValues, path: Path | None, *, prefer_plan: bool) -> Target:
    """Return the target for `find_target`. It checks only those files of the bundle that transformers reads."""
    backend = backend_of(changes)
    refuse_options(backend, changes)
    if path is None and changes.get("model"):
        recipe = Recipe.make(changes)
        if backend == "torch":
            return _checkpoint_target(resolve(recipe.replace(precision="fp32")), None, recipe.precision)
        path = _built(recipe)
    bundle = open_bundle(path or last_bundle(), trust=changes.get("trust"), check_files=False)
    check_described(bundle)
    refuse_fixed(bundle, changes)
    recipe = recorded(bundle, {**changes, "precision": None, "model": None, "output": None})
    new_task = any(changes.get(key) for key in ("task", "text_column", "label_column"))
    resolved, asked = resolve_bundle(bundle, recipe, new_task=new_task), changes.get("precision")
    if prefer_plan and not recipe.file and changes.get("backend") is None and recipe.device != "cpu" and plans(bundle):
        try:
            return _plan_target(resolved, bundle, "trt", asked)
        except MachineError as error:
            log.warning("%s ONNX Runtime is used instead.", error)
    match BACKENDS[backend].runs:
        case "server":
            return _server_target(resolved, bundle, backend, asked)
        case "plan":
            return _plan_target(resolved, bundle, backend, asked)
        case "checkpoint":
            return _checkpoint_target(resolved, bundle, asked)
        case "graph":
            return _graph_target(resolved, bundle, backend, asked)


def backend_of(changes: RecipeValues) -> str:
    """Return the backend that the options name, or else the backend that runs `file`: trt for a plan, otherwise ort."""
    return changes.get("backend") or plan_backend(changes.get("file") or "") or "ort"


def plans(bundle: Bundle) -> list[str]:
    """Return the sorted names of a bundle's TensorRT plans, including those for other machines."""
    return plans_of(bundle.manifest["artefacts"], "trt")


def choose_graph(bundle: Bundle, precision: str, device: str, *, backend: str = "ort") -> str:
    """Return the file name of the graph in `precision` that `backend` runs on `device`.

    It is the graph for this kind of device (model.int8.cpu.onnx even if the bundle lacks it), or the graph for any
    device if the backend cannot run that one, or runs attention faster in INT8 and the CPU has AVX-512 VNNI.
    """
    about, kind = BACKENDS.get(backend), device.partition(":")[0]
    own, in_int8 = f"model.{precision}.{kind}.onnx", (kind, precision) == ("cpu", "int8")
    takes_own = about and about.device_graphs and (in_int8 or own in bundle.manifest["artefacts"])
    prefers_typed = about and about.integer_attention and in_int8 and "avx512_vnni" in cpu_flags()
    return own if takes_own and not prefers_typed else typed_graph(precision)


def typed_graph(precision: str) -> str:
    """Return the file name of the graph in a precision that runs on any kind of device, such as model.int8.onnx."""
    return "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"


def find_reference(target: Target) -> Reference:
    """Return the FP32 reference of a target: the checkpoint in PyTorch.

    If a bundle's checkpoint cannot be used, the reference is the bundle's FP32 graph, with a warning. The build has
    compared that graph with the checkpoint.
    """
    if isinstance(target.model, Source):
        return Reference("torch-fp32", "torch", target.model)
    assert target.bundle is not None, "a target without a bundle runs a checkpoint"
    try:
        return Reference("torch-fp32", "torch", find_checkpoint(target.bundle, target.resolved.recipe))
    except ToolchainError as error:
        log.warning("%s The bundle's FP32 graph is the reference instead.", error)
        return Reference("ort-fp32", "ort", target.bundle.file("model.onnx"))


def find_checkpoint(bundle: Bundle, recipe: Recipe) -> Source:
    """Return the checkpoint that a bundle was built from, if its files still have the digests in the manifest.

    Raises:
        InputError: it cannot be found, its files have changed, or `recipe` lacks a consent such as trust_remote_code.
    """
    needed = [key for key in CONSENT if bundle.manifest["recipe"].get(key) and not getattr(recipe, key)]
    if needed:
        how = flag(needed[0])
        raise InputError(f"{bundle.path}: its checkpoint was loaded with {how}. Give {how} again if you trust it.")
    name = bundle.manifest["model"]["id"]
    try:
        source = find_model(
            name,
            **{key: getattr(recipe, key) for key in ("allow_pickle", "trust_remote_code", "ignore_unused")},
            pooling=bundled(bundle).pooling,
        )
    except ToolchainError as error:
        raise InputError(f"{bundle.path}: its checkpoint {name} cannot be found. ({error})") from error
    if source.digests != bundle.manifest["model"]["sha256"]:
        raise InputError(
            f"{source.folder}: not the checkpoint that {bundle.path} was built from. Build the bundle again."
        )
    return source


def recorded(bundle: Bundle, changes: RecipeValues) -> Recipe:
    """Return the recipe of a bundle with `changes` applied; its output is the bundle's folder."""
    asked = {key: value for key, value in changes.items() if value is not None}
    known = {key: value for key, value in bundle.manifest["recipe"].items() if key not in PERSONAL}
    if asked.get("data") and Path(asked["data"]).resolve() != Path(str(known.get("data"))).resolve():  # other data
        known = {key: value for key, value in known.items() if key not in ("split_column", "validation_share")}
    if known.get("calibration") == "calibration.json":  # the bundle's own file; the bundle may have been moved
        known["calibration"] = str(bundle.path / "calibration.json")
    return Recipe.make({"precision": bundle.manifest["precision"], **known, "output": str(bundle.path), **asked})


def _checkpoint_target(resolved: ResolvedRecipe, bundle: Bundle | None, asked: str | None) -> Target:
    """Return the target that runs a checkpoint in PyTorch: the bundle's or, without a bundle, the recipe's."""
    recipe, precision = resolved.recipe, asked or "fp32"
    device = _device("torch", recipe.device)
    source = find_checkpoint(bundle, recipe) if bundle else resolved.source
    compiled = "compiled" if recipe.compile else None
    return Target(
        resolved,
        bundle,
        "torch",
        device,
        precision,
        _variant(recipe, precision, _attention("torch", recipe), compiled),
        file=None,
        model=source,
        graph=bundle.file("model.onnx") if bundle else None,
        artefact={"file": "checkpoint", "sha256": sha256_json(source.digests)},
    )


def _graph_target(resolved: ResolvedRecipe, bundle: Bundle, backend: str, asked: str | None) -> Target:
    """Return the target that runs a graph of the bundle: `--file`, or the graph for this precision and device.

    Raises:
        InputError: the bundle does not have this file.
        UsageError: `asked` is not the file's precision, or `--halves` is given and the file has no float16 tensor.
    """
    recipe, wanted = resolved.recipe, asked or bundle.manifest["precision"]
    device = "cpu" if recipe.halves else _device(backend, recipe.device)
    chosen = typed_graph(wanted) if recipe.halves else choose_graph(bundle, wanted, device, backend=backend)
    file = recipe.file or chosen
    precision = _precision_of(file)
    if recipe.file and asked not in (None, precision):
        raise UsageError(f"--precision {asked}: {file} is in {precision}. Leave --precision or --file out.")
    kind = precision if file == "model.onnx" else file.removeprefix("model.").removesuffix(".onnx")
    graph = bundle.file(file)
    if recipe.halves and not file_has_halves(graph):
        raise UsageError(f"--halves: {file} has no float16 tensor. Leave --halves out, or give --file model.fp16.onnx.")
    artefact: ArtefactDigest = {"file": file, "sha256": bundle.manifest["artefacts"][file]}
    return Target(
        resolved,
        bundle,
        backend,
        device,
        precision,
        _variant(recipe, kind, bundle=bundle),
        file,
        graph,
        graph=graph,
        artefact=artefact,
    )


def _plan_target(resolved: ResolvedRecipe, bundle: Bundle, backend: str, asked: str | None) -> Target:
    """Return the target that runs a TensorRT plan of the bundle: `--file`, or the plan for this machine.

    Raises:
        MachineError: this machine lacks TensorRT or a GPU, or the bundle lacks a plan for them.
        UsageError: the plan's precision differs from `asked`, or `--file` is not a plan.
    """
    machine = find_machine(resolved.recipe.device, backend)
    file = resolved.recipe.file or find_plan(bundle.manifest["artefacts"], machine.tag, where=bundle.path)
    if not is_plan(file):
        raise UsageError(f"--file {file}: not a plan. Leave --file out, or choose --backend ort.")
    plan = bundle.file(file)
    record = check_plan(plan, machine.tag)
    precision = record["precision"]
    if asked not in (None, precision):
        raise UsageError(f"--precision {asked}: {bundle.path} has a plan in {precision}. Build another bundle.")
    typed = typed_graph(precision)
    return Target(
        resolved,
        bundle,
        backend,
        str(machine.device),
        precision,
        _variant(resolved.recipe, precision, "plugin" if record["layout"] == "packed" else None, bundle=bundle),
        file,
        plan,
        graph=bundle.file(typed if typed in bundle.manifest["artefacts"] else "model.onnx"),
        artefact={"file": file, "sha256": bundle.manifest["artefacts"][file]},
    )


def _server_target(resolved: ResolvedRecipe, bundle: Bundle, backend: str, asked: str | None) -> Target:
    """Return the target for a server that serves the bundle. Which device and file it uses is unknown here.

    Raises:
        UsageError: `asked` differs from the bundle's precision, or a server returns no logits for this kind of model.
    """
    recipe, precision, head = resolved.recipe, bundle.manifest["precision"], resolved.head
    if asked not in (None, precision):
        raise UsageError(f"--precision {asked}: the server decides which precision it runs. Leave --precision out.")
    if head.raw is None:
        why = f"returns {', '.join(head.outputs)}, but not the logits that are compared with FP32. Choose --backend ort"
        raise UsageError(f"--backend {backend}: a server that runs {head.what} {why}.")
    server = Server(str(recipe.url), head.texts_per_row, bundle.digest, recipe.token_file, head.raw)
    return Target(
        resolved,
        bundle,
        backend,
        "remote",
        precision,
        _variant(recipe, precision, bundle=bundle),
        file=None,
        model=server,
        graph=None,
        artefact={"file": server.url, "sha256": None},
    )


def _variant(recipe: Recipe, *kinds: str | None, bundle: Bundle | None = None) -> str:
    """Return the name that tells apart runs of one backend, such as `fp16.packed`, `int8.cpu`, `int8.plugin.graphs`."""
    stages, flags = {"cascade": bundle and bundle.is_cascade}, {"graphs": recipe.cuda_graphs, "halves": recipe.halves}
    return ".".join(name for name, given in (stages | {kind: True for kind in kinds if kind} | flags).items() if given)


def _attention(backend: str, recipe: Recipe) -> str | None:
    """Return the value of `--attention` for PyTorch; None for other backends and for values that only engines have."""
    return recipe.attention if backend == "torch" and recipe.attention in ATTENTIONS else None


def _device(backend: str, asked: str) -> str:
    """Return the device that a backend uses on this machine.

    Raises:
        UsageError, MachineError: see `choose_device`.
    """
    gpu = BACKENDS[backend].gpu
    if gpu is True:
        return choose_device("auto" if asked == "cpu" else asked, cuda=True)
    return choose_device(asked, cuda=bool(gpu and imported(gpu)()))


def _precision_of(graph: str) -> str:
    """Return the precision in a graph's name: `int8` for model.int8.cpu.onnx, `fp32` for model.onnx."""
    parts = graph.split(".")
    return parts[1] if len(parts) > 2 else "fp32"


def _built(recipe: Recipe) -> Path:
    """Return the folder of the bundle that a recipe describes.

    Raises:
        UsageError: the bundle has not been built.
    """
    bundle_folder = resolve(recipe).bundle_folder
    if not bundle_folder.exists():
        raise UsageError(f"{bundle_folder}: not built yet. Build it first with the same options: toolchain build.")
    return bundle_folder
