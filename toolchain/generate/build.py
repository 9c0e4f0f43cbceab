"""Builds the bundle of a language model: `toolchain build --task lm`.

One graph runs both the prompt and every later token. The build has these steps:

export   checkpoint -> model.onnx, compared with PyTorch
weights  model.onnx -> model.int8.onnx or model.int4.onnx

The bundle is written like any other (bundle/writer.py); its manifest also has the key `lm`.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.base.files import sha256_file
from toolchain.bundle import BUILD_FOLDER
from toolchain.bundle.steps import versions
from toolchain.bundle.writer import BundleWriter, open_writer
from toolchain.checkpoint.model import Source, find_model
from toolchain.checkpoint.stored_tokenizer import tokenizer_files
from toolchain.data.tasks import Task
from toolchain.errors import UsageError
from toolchain.generate import parity
from toolchain.generate.causal import check_causal, load_causal, positions
from toolchain.generate.decode_ort import open_graph
from toolchain.generate.export import export, require_exporter
from toolchain.generate.weight_only import BITS, quantize_weights, step_bytes
from toolchain.recipe import Recipe
from toolchain.records.bundle import BuildRecord, LanguageModelExport
from toolchain.records.language_model import LanguageModelFacts, WeightsRecord
from toolchain.runtimes.parity import check

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The name of the task, and of the head in its bundles.
TASK = "lm"

# Precision -> the build steps that it needs.
STEPS = {"fp32": ("export",), "int8": ("export", "weights"), "int4": ("export", "weights")}

# Step -> version of its code. Raise it when a change of the code changes the files that the step writes.
VERSIONS = {"export": 2, "weights": 1}

# Options of a recipe that apply to a language model. The manifest records those in KEPT.
KEPT = (
    *("model", "task", "data", "split_column", "validation_share", "text_join", "text_column", "precision", "seed"),
    *("max_length", "atol", "ignore_unused"),
)
TAKEN = {*KEPT, "split", "backend", "device", "output", "force", "dry_run", "allow_pickle", "trust_remote_code"}

# Tokens per window when perplexity is measured, if --max-length is not given and the model does not have fewer
# positions.
WINDOW = 1024

GENERATION = "generation_config.json"

# Settings of generation_config.json that need no warning: greedy search ignores them, or generation follows them.
FOLLOWED = {"transformers_version", "_from_model_config", "bos_token_id", "eos_token_id", "pad_token_id", "do_sample"}
FOLLOWED |= {"temperature", "top_k", "top_p", "min_p", "typical_p", "num_beams", "max_length", "max_new_tokens"}
FOLLOWED |= {"use_cache", "cache_implementation", "output_attentions", "output_hidden_states"}

Log = Callable[[str], None]


def build(recipe: Recipe, *, log: Log = lambda line: None) -> BuildRecord:
    """Build the bundle of a language model; in an existing bundle, run only the steps whose inputs changed.

    Raises:
        GateError: the graph differs from PyTorch, or too few of its weights can be quantized.
        MachineError: the installed transformers lacks the exporter.
        ToolchainError: see errors.py. An existing bundle is unchanged after any error.
    """
    _refuse(recipe)
    precision = recipe.precision or "int8"
    if precision not in STEPS:
        why = (
            "a CPU would compute float16 in float32, which is not faster"
            if precision == "fp16"
            else f"this precision is not available for --task {TASK}"
        )
        raise UsageError(f"--precision {precision}: {why}. Choose one of {', '.join(STEPS)}.")
    require_exporter()
    consent = {name: getattr(recipe, name) for name in ("allow_pickle", "trust_remote_code", "ignore_unused")}
    source = find_model(str(recipe.model), **consent)
    check_causal(source)
    folder = Path(recipe.output or BUILD_FOLDER / f"{source.folder.resolve().name}-{TASK}-{precision}")
    if recipe.dry_run:
        return {"bundle": str(folder), "precision": precision, "would_do": [*STEPS[precision]]}
    with open_writer(folder, force=recipe.force, log=log, lm=True) as made:
        maker = _Maker(source, recipe, made, precision)
        records = {name: maker.steps[name]() for name in STEPS[precision]}
        made.finish(maker.about(records))
    done = [name for name in records if name not in made.skipped]
    record: Any = {
        "bundle": str(folder),
        "precision": precision,
        "up_to_date": not done,
        "done": done,
        "skipped": made.skipped,
        "artefacts": sorted(made.artefacts),
        **records,
        "next": f"toolchain generate {folder} --prompt 'Once upon a time'",
    }
    found: BuildRecord = record
    return found


def _refuse(recipe: Recipe) -> None:
    """Refuse options that do not apply to a language model.

    Raises:
        UsageError: such an option is given. The message names the first.
    """
    if not recipe.model:
        raise UsageError(f"--task {TASK}: no model is given. Name a causal language model with -m.")
    if recipe.backend not in (None, "ort"):
        raise UsageError(
            f"--backend {recipe.backend}: the bundle of a language model runs on ort alone. Leave the option out."
        )
    others = [field.name for field in dataclasses.fields(recipe) if field.name not in TAKEN]
    if given := recipe.flags(others):
        raise UsageError(f"{given[0]}: this option is not for --task {TASK}. Leave it out.")


@dataclasses.dataclass
class _Maker:
    """The steps of one build. The model is loaded at the first step that needs it."""

    source: Source
    recipe: Recipe
    made: BundleWriter
    precision: str
    loaded: "PreTrainedModel | None" = None

    @property
    def steps(self) -> dict[str, Callable[[], Mapping[str, Any]]]:
        return {"export": self.export, "weights": self.weights}

    @property
    def model(self) -> "PreTrainedModel":
        if self.loaded is None:
            self.loaded = load_causal(self.source, device="cpu")
        return self.loaded

    def export(self) -> LanguageModelExport:
        def run(folder: Path) -> LanguageModelExport:
            found = export(self.model, folder / "model.onnx", where=str(self.source.folder))
            names = ["config.json", *tokenizer_files(self.source.tokenizer, self.source.folder)]
            for name in (*names, *([GENERATION] if (self.source.folder / GENERATION).is_file() else [])):
                shutil.copyfile(self.source.folder / name, folder / name)
            return {**found, "parity": self._parity(folder / "model.onnx", self.recipe.atol), "lm": self._facts()}

        generation = self.source.folder / GENERATION
        inputs = {
            "version": VERSIONS["export"],
            "model": self.source.digests,
            "generation": sha256_file(generation) if generation.is_file() else None,
            "atol": self.recipe.atol,
            "tools": versions("torch", "transformers", "onnxscript", "onnx-ir"),
        }
        return self.made.step("export", inputs, run)

    def weights(self) -> WeightsRecord:
        def run(folder: Path) -> WeightsRecord:
            from toolchain import graph

            model, file = graph.load(folder / "model.onnx"), self.file
            record = quantize_weights(model, BITS[self.precision], where=f"{self.source.name}: {file}")
            graph.save(model, folder / file)
            parity.require_finite(open_graph(folder / file), where=f"{self.source.name}: {file}")
            return record

        graph_sha256 = self.made.artefacts["model.onnx"]
        inputs = {"version": VERSIONS["weights"], "graph": graph_sha256, "bits": BITS[self.precision]}
        return self.made.step("weights", {**inputs, "tools": versions("onnx-ir", "onnxruntime")}, run)

    @property
    def file(self) -> str:
        return graph_name(self.precision)

    def _parity(self, file: Path, rtol: float) -> Any:  # a ParityRecord
        """Compare a graph with the model in PyTorch, and fail if they differ too much.

        `rtol` is the largest difference allowed, as a fraction of the largest logit (see `parity.centred`).
        """
        found = parity.compare(self.model, open_graph(file), seed=self.recipe.seed)
        return check(found, where=f"{self.source.name}: {file.name}", atol=rtol * found.largest_logit).to_json()

    def about(self, records: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the entries of the manifest other than those of its steps and artefacts."""
        facts, kept = records["export"]["lm"], self._kept()
        return {
            "model": {
                "id": kept["model"],
                "type": self.source.type,
                "labels": [],
                "sha256": self.source.digests,
            },
            "task": Task(name=TASK, text_columns=(self.recipe.text_column or "text",)).to_json(),
            "precision": self.precision,
            "max_length": min(self.recipe.max_length or WINDOW, facts["positions"] or WINDOW),
            "inputs": records["export"]["inputs"],
            "outputs": records["export"]["outputs"],
            "parity": {name: record["parity"] for name, record in records.items() if "parity" in record},
            "calibration": None,
            "lm": {**facts, "step_bytes": self._step_bytes(records)},
            "recipe": kept,
            "versions": versions("torch", "transformers", "onnx-ir", "onnxruntime", "onnxruntime-gpu"),
        }

    def _facts(self) -> LanguageModelFacts:
        settings = self.model.generation_config
        ends = settings.eos_token_id
        return {
            "positions": positions(self.model),
            "vocabulary": int(self.model.config.get_text_config().vocab_size),
            "end_ids": [ends] if isinstance(ends, int) else [*(ends or ())],
            "not_followed": sorted(settings.to_diff_dict().keys() - FOLLOWED),
        }

    def _step_bytes(self, records: Mapping[str, Any]) -> dict[str, int]:
        if self.made.old and len(self.made.skipped) == len(records):
            return self.made.old.manifest["lm"]["step_bytes"]
        from toolchain import graph

        graphs = sorted(name for name in self.made.artefacts if name.endswith(".onnx"))
        return {name: step_bytes(graph.load(self.made.folder / name)) for name in graphs}

    def _kept(self) -> dict[str, Any]:  # values of options, as a recipe's TOML may have them
        """Return the recipe's options that the manifest keeps; paths are made absolute."""
        kept = {name: getattr(self.recipe, name) for name in KEPT if getattr(self.recipe, name) is not None}
        kept["precision"] = self.precision
        for key in ("model", "data"):
            if key in kept and Path(kept[key]).exists():
                kept[key] = str(Path(kept[key]).resolve())
        return kept


def graph_name(precision: str) -> str:
    """Return the file name of the graph in a precision."""
    return "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"
