"""Recipe to bundle: the steps in order, each skipped when its inputs are what they were.

export     checkpoint -> model.onnx, checked against PyTorch
half       model.onnx -> model.fp16.onnx
calibrate  model.onnx + rows -> calibration.json, calibration.cache
quantize   model.onnx + ranges -> model.int8.onnx, model.int8.cpu.onnx
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import parity
from toolchain.bundle import BUILD_FOLDER, Stage, stage
from toolchain.data import Rows, Text, load_rows
from toolchain.environment import version_of
from toolchain.errors import GateError, InputError, UsageError
from toolchain.files import sha256_file, sha256_json
from toolchain.model import TOKENIZER_FILES, Source, choose_max_length, find_model, load_tokenizer
from toolchain.recipe import DEFAULT_MODEL, Recipe
from toolchain.runtimes import open_runtime
from toolchain.tasks import Task, load_task
from toolchain.tokens import Tokens, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEP_VERSIONS = {"export": 1, "half": 1, "calibrate": 1, "quantize": 1}
"""Raised when a step's code changes what it writes, so that old outputs are not taken for new."""

PRECISION_STEPS = {"fp32": ("export",), "fp16": ("export", "half"),
                   "int8": ("export", "calibrate", "quantize")}  # fmt: skip
PARITY_ROWS = 32
HALF_ATOL = 0.05
"""float16 keeps 11 bits; sound conversions of such encoders differ by 1e-4 to 1e-2."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A recipe with its names resolved: what every step needs to know."""

    recipe: Recipe
    source: Source
    task: Task
    max_length: int
    precision: str
    steps: tuple[str, ...]

    @property
    def target(self) -> Path:
        """The bundle's folder."""
        if self.recipe.output:
            return Path(self.recipe.output)
        model = Path(self.source.name).name or self.source.folder.resolve().name
        kind = "calibration" if self.steps[-1] == "calibrate" else self.precision
        return BUILD_FOLDER / f"{model}-{self.task.name}-{kind}"

    def encode(self, texts: list[Text]) -> Tokens:
        """Tokenise as every backend will."""
        return encode(self.tokenizer, texts, max_length=self.max_length, inputs=self.source.inputs)

    @functools.cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer, loaded when it is first needed."""
        return load_tokenizer(self.source.folder, trust_remote_code=self.source.trust_remote_code)

    @functools.cached_property
    def calibration_rows(self) -> Rows:
        """Return the rows to calibrate with: a seeded sample of the train split, or of --calib-data.

        Raises:
            InputError: they would come from the very file that is evaluated.
        """
        recipe = self.recipe
        rows = load_rows(self.task, "train", data=recipe.calib_data or recipe.data)
        evaluated = Path(recipe.data or "") / f"{recipe.split}{Path(rows.source).suffix}"
        if evaluated.exists() and Path(rows.source).exists() and evaluated.samefile(rows.source):
            raise InputError(
                f"{rows.source}: the rows to calibrate with are the rows to evaluate. "
                "Give others in train.* or with --calib-data."
            )
        return rows.sample(recipe.calib_samples, seed=recipe.seed)


def prepare(recipe: Recipe, steps: Collection[str] | None = None) -> Job:
    """Find the model and the task of a recipe; nothing heavy is loaded.

    `steps` are those of STEPS that its precision asks for, if not given.

    Raises:
        InputError: the checkpoint cannot be used, or gives several labels at once.
        UsageError: a name is unknown, or the precision is one that nothing is built in.
        MachineError: the hub is needed and cannot be reached.
    """
    precision = recipe.precision or "fp16"
    if precision not in PRECISION_STEPS:
        raise UsageError(f"--precision {precision}: only for eval --backend torch. Build fp32, fp16 or int8.")
    source = find_model(
        recipe.model or DEFAULT_MODEL,
        allow_pickle=recipe.allow_pickle,
        trust_remote_code=recipe.trust_remote_code,
    )
    if source.config.get("problem_type") == "multi_label_classification":
        raise InputError(f"{source.name}: gives several labels at once. Choose a model with one label a row.")
    task = load_task(recipe, regression=source.regression)
    wanted = steps or PRECISION_STEPS[precision]
    ordered = tuple(name for name in STEPS if name in wanted)
    return Job(recipe, source, task, choose_max_length(source, recipe.max_length), precision, ordered)


def build(recipe: Recipe, *, steps: Collection[str] | None = None, log: Log = lambda line: None) -> dict[str, Any]:
    """Make or bring up to date the bundle that a recipe describes, by `steps` or those of its precision.

    Returns:
        A JSON record: bundle, precision, steps done and skipped, artefacts, and the record of each step.

    Raises:
        ToolchainError: see errors.py; the bundle that was there is then as it was.
    """
    job = prepare(recipe, steps)
    if recipe.dry_run:
        return {"bundle": str(job.target), "precision": job.precision, "would_do": list(job.steps)}
    if "calibrate" in job.steps and not recipe.calibration:
        _ = job.calibration_rows  # what is wrong with the data shows before anything long is begun
    with stage(job.target, force=recipe.force, log=log) as made:
        records = {name: STEPS[name](job, made) for name in job.steps}
        made.finish(_about(job, records))
    done = [name for name in job.steps if name not in made.skipped]
    return {
        "bundle": str(job.target),
        "precision": job.precision,
        "up_to_date": not done,
        "done": done,
        "skipped": made.skipped,
        "artefacts": sorted(made.artefacts),
        **records,
    }


def _about(job: Job, records: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the manifest that says what the bundle is."""
    fields = dataclasses.asdict(job.recipe)
    paths = ("model", "data", "calib_data", "calibration")
    transient = ("output", "force", "dry_run", "backend", "device", "file", "limit", "trust")
    kept = {key: value for key, value in fields.items() if value is not None and key not in transient}
    for key in paths:  # a bundle is used from other folders than the one it was built in
        if key in kept and Path(kept[key]).exists():
            kept[key] = str(Path(kept[key]).resolve())
    return {
        "model": {"id": kept.get("model", DEFAULT_MODEL), "type": job.source.type,
                  "labels": job.source.labels, "sha256": job.source.digests},
        "task": dataclasses.asdict(job.task),
        "precision": job.precision,
        "max_length": job.max_length,
        "inputs": records["export"]["inputs"],
        "outputs": records["export"]["outputs"],
        "parity": {name: record["parity"] for name, record in records.items() if "parity" in record},
        "calibration": records.get("calibrate"),
        "recipe": kept,
        "versions": _versions("torch", "transformers", "onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    }  # fmt: skip


def _versions(*packages: str) -> dict[str, str | None]:
    return {package: version_of(package) for package in packages}


def _export(job: Job, made: Stage) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain.export import export

        record = export(job.source, folder / "model.onnx")
        for pattern in ("config.json", *TOKENIZER_FILES):
            for file in job.source.folder.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        found = _parity(job, folder / "model.onnx")
        parity.check(found, where=f"{job.source.name}: model.onnx", atol=job.recipe.atol)
        return {**record, "parity": found.to_json()}

    inputs = {"model": job.source.digests, "atol": job.recipe.atol, "columns": len(job.task.text_columns),
              "tools": _versions("torch", "transformers", "onnxscript", "onnx-ir")}  # fmt: skip
    return made.step("export", {"version": STEP_VERSIONS["export"], **inputs}, run)


def _half(job: Job, made: Stage) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain import graph
        from toolchain.graph.half import to_half

        model = graph.load(folder / "model.onnx")
        nodes = to_half(model)
        graph.save(model, folder / "model.fp16.onnx")
        found = _parity(job, folder / "model.fp16.onnx")
        parity.check(found, where=f"{job.source.name}: model.fp16.onnx", atol=HALF_ATOL)
        return {"float16_nodes": nodes, "parity": found.to_json()}

    inputs = {"version": STEP_VERSIONS["half"], "graph": made.artefacts["model.onnx"]}
    return made.step("half", inputs, run)


def _calibrate(job: Job, made: Stage) -> dict[str, Any]:
    from toolchain.calibrate import calibrate, read_ranges, write_ranges

    recipe = job.recipe
    if recipe.calibration:
        file = Path(recipe.calibration)
        ranges = read_ranges(file)
        about: dict[str, Any] = {"method": "file", "sha256": sha256_file(file)}
        return made.step("calibrate", about, lambda folder: _written(write_ranges, folder, ranges, about))

    rows = job.calibration_rows
    about = {"method": recipe.calib_method, "samples": len(rows), "data_sha256": rows.digest}
    inputs = {
        "version": STEP_VERSIONS["calibrate"],
        "graph": made.artefacts["model.onnx"],
        "tokenizer": {name: digest for name, digest in job.source.digests.items() if name != "config.json"},
        "max_length": job.max_length,
        **about,
    }

    def run(folder: Path) -> dict[str, Any]:
        ranges = calibrate(folder / "model.onnx", job.encode(rows.texts), method=recipe.calib_method)
        extra = {"row_sha256": sorted(row_digests(rows))}
        return _written(write_ranges, folder, ranges, about | extra) | {"tensors": len(ranges)}

    return made.step("calibrate", inputs, run)


def _written(write: Callable[..., None], folder: Path, ranges: Any, about: dict[str, Any]) -> dict[str, Any]:
    write(folder, ranges, about)
    return {key: value for key, value in about.items() if key != "row_sha256"}


def row_digests(rows: Rows) -> set[str]:
    """Return a short digest of each row's text, to find rows again without keeping their text."""
    return {sha256_json(text)[:16] for text in rows.text_keys}


def _quantize(job: Job, made: Stage) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain.calibrate import read_ranges
        from toolchain.coverage import integer_coverage
        from toolchain.quantize import CPU, TENSORRT, quantize

        ranges = read_ranges(folder / "calibration.json")
        views = {"model.int8.onnx": TENSORRT, "model.int8.cpu.onnx": CPU}
        record = {
            file: quantize(folder / "model.onnx", ranges, target, folder / file) for file, target in views.items()
        }
        found = _parity(job, folder / "model.int8.cpu.onnx")
        if not found.finite:
            raise GateError(f"{job.source.name}: model.int8.cpu.onnx gives NaN or infinity. Calibrate with more rows.")
        products = {file: integer_coverage(folder / file) for file in views}
        return {"views": record, "products_on_cpu": products, "parity": found.to_json()}

    inputs = {
        "version": STEP_VERSIONS["quantize"],
        "graph": made.artefacts["model.onnx"],
        "ranges": made.artefacts["calibration.json"],
        "tools": _versions("onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    }
    return made.step("quantize", inputs, run)


def _parity(job: Job, model: Path) -> parity.Parity:
    """Compare a graph with the checkpoint in PyTorch, on the task's own rows where there are any."""
    tokens = job.encode(_parity_texts(job))
    with (
        open_runtime("torch", job.source, device="cpu") as reference,
        open_runtime("ort", model, device="cpu") as candidate,
    ):
        return parity.compare(reference, candidate, tokens)


def _parity_texts(job: Job) -> list[Text]:
    if job.recipe.data is None and job.task.folder is None:
        return parity.probe_texts(len(job.task.text_columns))
    try:
        rows = load_rows(job.task, "train", data=job.recipe.data)
    except InputError:  # a folder needs only the splits that a command uses, and this is a bonus
        return parity.probe_texts(len(job.task.text_columns))
    return rows.texts[:PARITY_ROWS]


STEPS: dict[str, Callable[[Job, Stage], dict[str, Any]]] = {
    "export": _export,
    "half": _half,
    "calibrate": _calibrate,
    "quantize": _quantize,
}
