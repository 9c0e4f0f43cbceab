"""What is evaluated: a backend on an artefact of a bundle, or on a checkpoint without one."""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.bundle import RESULTS, Bundle, last_bundle, open_bundle
from toolchain.bundle.engine_step import find_machine
from toolchain.bundle.resolved import ResolvedRecipe, resolve, resolve_bundle
from toolchain.checkpoint.model import Source, find_model
from toolchain.checkpoint.tokenize import Encode, Sent
from toolchain.engine.plan import check_plan, find_plan, is_plan, read_record
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.files import sha256_json
from toolchain.recipe import ATTENTIONS, REMOTE, Recipe
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.remote import Server

log = logging.getLogger(__name__)

EVAL_RESULTS = Path("eval/results")


@dataclass(frozen=True)
class Target:
    """One runtime to evaluate. `file` is an artefact's name; None stands for the checkpoint."""

    resolved: ResolvedRecipe
    bundle: Bundle | None
    backend: str
    device: str
    precision: str
    file: str | None

    @property
    def remote(self) -> bool:
        """Whether it runs in a server, so that nothing of this machine tells about it."""
        return self.backend in REMOTE

    @property
    def is_reference(self) -> bool:
        """Whether it is what all else is compared with: the checkpoint in FP32 on the CPU, run as it stands."""
        return (self.backend, self.variant, self.device) == ("torch", "fp32", "cpu")

    @property
    def encode(self) -> Encode:
        """Texts to what the runtime takes."""
        return functools.partial(Sent, encode=self.resolved.encode) if self.remote else self.resolved.encode

    @property
    def model(self) -> Source | Path | Server:
        """What the runtime opens.

        Raises:
            InputError: the bundle lacks the artefact, or its checkpoint is gone or another.
        """
        if self.bundle is None:
            return self.resolved.source
        if self.remote:
            recipe = self.resolved.recipe
            return Server(str(recipe.url), len(self.resolved.task.text_columns), self.bundle.digest, recipe.token_file)
        return checkpoint(self.bundle, self.resolved.recipe) if self.file is None else self.bundle.file(self.file)

    @property
    def graph(self) -> Path | None:
        """The ONNX graph that has the work of what runs, or None for a checkpoint that no bundle was built from."""
        if self.bundle is None or self.remote:
            return None
        if self.file is None or not is_plan(self.file):
            return self.bundle.file(self.file or "model.onnx")
        typed = f"model.{self.precision}.onnx"
        return self.bundle.file(typed if typed in self.bundle.manifest["artefacts"] else "model.onnx")

    @property
    def choices(self) -> dict[str, Any]:
        """How the runtime opens it."""
        graphs = {"cuda_graphs": True} if self.resolved.recipe.cuda_graphs else {}
        compiled = {"compiled": True} if self.resolved.recipe.compile else {}
        attention = {"attention": self.attention} if self.attention else {}
        return {"device": self.device, "precision": self.precision, **graphs, **compiled, **attention}

    @property
    def attention(self) -> str | None:
        """How PyTorch attends, if that was asked for; what a bundle was built with concerns its engine alone."""
        asked = self.resolved.recipe.attention
        return asked if self.backend == "torch" and asked in ATTENTIONS else None

    @property
    def model_digests(self) -> dict[str, str]:
        """File name -> SHA-256 of the checkpoint."""
        return self.bundle.manifest["model"]["sha256"] if self.bundle else self.resolved.source.digests

    @property
    def artefact(self) -> dict[str, str | None]:
        """Return name and digest of what runs."""
        if self.remote:
            return {"file": str(self.resolved.recipe.url), "sha256": None}  # a server need not say what it runs
        if self.bundle is None or self.file is None:
            return {"file": "checkpoint", "sha256": sha256_json(self.model_digests)}
        return {"file": self.file, "sha256": self.bundle.manifest["artefacts"][self.file]}

    @property
    def variant(self) -> str:
        """What tells runs of one backend apart: fp16.packed, int8.cpu, int8.plugin of a plan, int8.graphs."""
        recorded = "graphs" if self.resolved.recipe.cuda_graphs else None
        return ".".join(filter(None, [self._kind, recorded]))

    @property
    def _kind(self) -> str:
        if self.backend == "torch":
            parts = [self.precision, self.attention, "compiled" if self.resolved.recipe.compile else None]
            return ".".join(filter(None, parts))
        if self.file is None or self.file == "model.onnx":
            return self.precision
        if is_plan(self.file):
            assert self.bundle is not None
            packed = read_record(self.bundle.path / self.file)["layout"] == "packed"
            return f"{self.precision}.plugin" if packed else self.precision
        return self.file.removeprefix("model.").removesuffix(".onnx")

    @property
    def reference(self) -> tuple[str, str, Source | Path]:
        """Return name, backend and model of the FP32 reference.

        It is the checkpoint in PyTorch; a bundle that has left it behind is compared with its own
        FP32 graph, which was compared with the checkpoint when it was built.
        """
        if self.bundle is None:
            return "torch-fp32", "torch", self.resolved.source
        try:
            return "torch-fp32", "torch", checkpoint(self.bundle, self.resolved.recipe)
        except ToolchainError as error:
            log.warning("%s Comparing with the bundle's FP32 graph instead.", error)
            return "ort-fp32", "ort", self.bundle.file("model.onnx")

    @property
    def folder(self) -> Path:
        """Where its results go."""
        return self.bundle.path / RESULTS if self.bundle else EVAL_RESULTS


CHOSEN_ROWS = "tune/rows.json"
"""Below a bundle's results: digests of the rows that `tune` chose on."""

CONSENT = ("allow_pickle", "trust_remote_code")
"""What a person must agree to in each call: a bundle, perhaps a stranger's, cannot agree for them."""


def checkpoint(bundle: Bundle, recipe: Recipe) -> Source:
    """Return the checkpoint that a bundle was built from; `recipe` says what code may run.

    Raises:
        InputError: it is gone, has other files now, or needs a consent that was not given.
    """
    needed = [key for key in CONSENT if bundle.manifest["recipe"].get(key) and not getattr(recipe, key)]
    if needed:
        flag = f"--{needed[0].replace('_', '-')}"
        raise InputError(f"{bundle.path}: its checkpoint was loaded with {flag}. Give {flag} again if you trust it.")
    name = bundle.manifest["model"]["id"]
    try:
        source = find_model(name, allow_pickle=recipe.allow_pickle, trust_remote_code=recipe.trust_remote_code)
    except ToolchainError as error:
        raise InputError(f"{bundle.path}: its checkpoint {name} cannot be had. ({error})") from error
    if source.digests != bundle.manifest["model"]["sha256"]:
        raise InputError(
            f"{source.folder}: not the checkpoint that {bundle.path} was built from. Build the bundle again."
        )
    return source


def recorded(bundle: Bundle, changes: dict[str, Any]) -> Recipe:
    """Return the recipe that a bundle was built from, with `changes`, to write to the same folder."""
    asked = {key: value for key, value in changes.items() if value is not None}
    known = {key: value for key, value in bundle.manifest["recipe"].items() if key not in CONSENT}
    if known.get("calibration") == "calibration.json":  # the bundle's own, wherever it is now
        known["calibration"] = str(bundle.path / "calibration.json")
    return Recipe.make({"precision": bundle.manifest["precision"], **known, "output": str(bundle.path), **asked})


def find_target(changes: dict[str, Any], path: Path | None) -> Target:
    """Resolve what to evaluate: `changes` first, then the bundle at `path` or the one built last.

    Raises:
        ToolchainError: see errors.py.
    """
    backend = changes.get("backend") or "ort"
    _refuse_options(backend, changes)
    if path is None and changes.get("model"):
        recipe = Recipe.make(changes)
        if backend == "torch":
            resolved = resolve(recipe.replace(precision="fp32"))
            return Target(resolved, None, backend, _device(backend, recipe), recipe.precision or "fp32", None)
        path = _built(recipe)
    bundle = open_bundle(path or last_bundle(), trust=changes.get("trust"))
    _refuse_fixed(bundle, changes)
    asked = changes.get("precision")
    recipe = recorded(bundle, {**changes, "precision": None, "model": None, "output": None})
    resolved = resolve_bundle(
        bundle, recipe, new_task=any(changes.get(key) for key in ("task", "text_column", "label_column"))
    )
    if backend in REMOTE:
        if asked not in (None, bundle.manifest["precision"]):
            raise UsageError(f"--precision {asked}: the server runs what it runs. Leave it out.")
        return Target(resolved, bundle, backend, "remote", asked or bundle.manifest["precision"], None)
    if backend == "trt":
        return _planned(resolved, bundle, asked)
    device = _device(backend, recipe)
    if backend == "torch":
        return Target(resolved, bundle, backend, device, asked or "fp32", None)
    file = recipe.file or default_file(asked or bundle.manifest["precision"], device, bundle, backend=backend)
    if recipe.file and asked not in (None, _precision_of(file)):
        raise UsageError(f"--precision {asked}: {file} is in {_precision_of(file)}. Leave one of them out.")
    return Target(resolved, bundle, backend, device, _precision_of(file), file)


def _refuse_options(backend: str, changes: dict[str, Any]) -> None:
    """Refuse what only another backend does.

    Raises:
        UsageError: naming the option.
    """
    if changes.get("attention") in ATTENTIONS and backend != "torch":
        raise UsageError(f"--attention {changes['attention']}: only with --backend torch. Add it.")
    if changes.get("compile") and backend != "torch":
        raise UsageError("--compile: only with --backend torch. Add it.")
    if backend == "torch" and changes.get("file"):
        raise UsageError(f"--file {changes['file']}: torch runs the checkpoint. Leave it out, or choose --backend ort.")


def _planned(resolved: ResolvedRecipe, bundle: Bundle, asked: str | None) -> Target:
    """Return the plan of a bundle that runs on this machine.

    Raises:
        MachineError: this machine lacks TensorRT or a GPU, or the bundle a plan for them.
        UsageError: the plan has another precision than was asked for, or `--file` names no plan.
    """
    machine = find_machine(resolved.recipe.device)
    file = resolved.recipe.file or find_plan(list(bundle.manifest["artefacts"]), machine.tag, where=bundle.path)
    if not is_plan(file):
        raise UsageError(f"--file {file}: no plan. Leave it out, or choose --backend ort.")
    record = check_plan(bundle.file(file), machine.tag, digest=False)  # the bundle's digests were checked
    if asked not in (None, record["precision"]):
        raise UsageError(
            f"--precision {asked}: {bundle.path} has a plan in {record['precision']}. Build another bundle."
        )
    return Target(resolved, bundle, "trt", machine.device, record["precision"], file)


def _built(recipe: Recipe) -> Path:
    """Return the bundle that a recipe makes.

    Raises:
        UsageError: it has not been built.
    """
    bundle_folder = resolve(recipe).bundle_folder
    if not bundle_folder.exists():
        raise UsageError(f"{bundle_folder}: not built yet. Build it first, with the same options: toolchain build.")
    return bundle_folder


def _refuse_fixed(bundle: Bundle, changes: dict[str, Any]) -> None:
    """Refuse what only a new build can change.

    Raises:
        UsageError: a model or a length was asked for that is not the bundle's.
    """
    fixed = {"model": bundle.manifest["model"]["id"], "max_length": bundle.manifest["max_length"]}
    for key, value in fixed.items():
        asked = changes.get(key)
        if asked not in (None, value) and not (key == "model" and Path(asked).resolve() == Path(value)):
            flag = f"--{key.replace('_', '-')}"
            raise UsageError(f"{flag} {asked}: {bundle.path} was built with {value}. Build another bundle.")


def _device(backend: str, recipe: Recipe) -> str:
    if backend == "torch":
        import torch

        return choose_device(recipe.device, cuda=torch.cuda.is_available())
    if backend == "ort-trt":
        return choose_device("auto" if recipe.device == "cpu" else recipe.device, cuda=True)
    from toolchain.runtimes.ort import import_onnxruntime

    providers = import_onnxruntime().get_available_providers()
    return choose_device(recipe.device, cuda="CUDAExecutionProvider" in providers)


def default_file(precision: str, device: str, bundle: Bundle, *, backend: str = "ort") -> str:
    """Return the graph made for the device, where the bundle has one for it: ONNX Runtime's own providers alone."""
    kind = device.partition(":")[0]
    own = f"model.{precision}.{kind}.onnx"
    if backend == "ort" and (own in bundle.manifest["artefacts"] or (kind, precision) == ("cpu", "int8")):
        return own
    return "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"


def _precision_of(file: str) -> str:
    parts = file.split(".")
    return parts[1] if len(parts) > 2 else "fp32"
