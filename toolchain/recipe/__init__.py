"""Recipes: every choice that changes a result, from flags, `--set` and TOML files.

A recipe is plain data. Its keys are the options of the command line with `_` for `-`. A flag overrides `--set`, which
overrides the recipe's file, which overrides the default. The command line is made from the class below, so an option
means the same in every command.
"""

import dataclasses
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict

from toolchain.errors import UsageError, meant
from toolchain.recipe.checks import check_together
from toolchain.recipe.options import check, flag, joined, load_recipe, option, toml_value
from toolchain.recipe.tables import ATTENTIONS, AUTO, BACKENDS, HARDWARE, PRECISIONS, QUANTIZED, SCENARIOS

DEFAULT_MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


class Reading(TypedDict, total=False):
    """The keys of a recipe that say where rows are read from, and how: the keyword arguments of `load_rows`."""

    data: str | None
    split_column: str | None
    validation_share: float | None
    text_join: str | None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of one run.

    Raises:
        UsageError: on construction, if a value has the wrong type, is out of range, or excludes another.
    """

    model: str | None = option(
        None,
        f"hub id, local checkpoint, or demo, demo-tokens, demo-multilabel (default {DEFAULT_MODEL})",
        short="-m",
        metavar="ID_OR_DIR",
    )
    task: str | None = option(
        None,
        "a GLUE task, demo, custom, or a TOML file (default sst2; for a demo model the one of its name)",
        metavar="NAME_OR_TOML",
    )
    data: str | None = option(
        None,
        "folder with train.* and validation.* (tsv, csv, json, jsonl, parquet, also the hub's "
        "data/train-00000-of-00001), folder of save_to_disk, or one file with --split-column or --validation-share "
        "(default: as built; else GLUE from the hub)",
        metavar="PLACE",
    )
    split_column: str | None = option(None, "column of one file that has each row's split", metavar="C")
    validation_share: float | None = option(
        None, "share of the rows of one file, or of a folder without validation, that is validation", metavar="SHARE"
    )
    text_join: str | None = option(
        None, "join text cells that are lists of texts, or turns of a chat, by this text", metavar="TEXT"
    )
    split: str = option("validation", "split to evaluate", metavar="NAME")
    text_column: str | None = option(None, "text column, or two for pairs (task custom)", metavar="A[,B]")
    label_column: str | None = option(
        None, "label column, or several that are 1 where a row has their label (task custom)", metavar="L[,M...]"
    )
    threshold: float | None = option(
        None, "score from which a row has a label, for a model of several labels a row (default 0.5)", metavar="SHARE"
    )
    precision: str | None = option(
        None, "number type (default to build: fp16 with a GPU, int8 without; to evaluate: as built)", choices=PRECISIONS
    )
    backend: str | None = option(
        None,
        "where to run (default to build: every one that this machine can; else ort, and to serve trt with a plan; auto "
        "to eval, predict and serve: the fastest runtime for CPUs by a short trial)",
        choices=ChainMap[str, Any]({AUTO: None}, BACKENDS).keys(),
    )
    url: str | None = option(
        None, "address of the server (triton, service): http://HOST:PORT[/v2/models/NAME]", metavar="URL"
    )
    token_file: str | None = option(None, "file with the server's bearer token", metavar="FILE")
    target: str | None = option(
        None,
        "GPUs to compile for with TensorRT-RTX, on any machine (trt-rtx): names or compute capabilities",
        metavar="t4,l4,sm86",
    )
    device: str = option("auto", "auto, cpu or cuda[:N]", metavar="DEVICE")
    file: str | None = option(
        None, "artefact of the bundle to run (default: the one for the backend and the device)", metavar="NAME"
    )
    output: str | None = option(
        None,
        "the bundle (default engines/build/<model>-<task>-<precision>)",
        short="-o",
        metavar="DIR",
    )
    calib_samples: int = option(512, "rows to calibrate with", metavar="N", least=1)
    calib_method: str | None = option(
        None,
        "range method: entropy, minmax, mse, percentile (99.99), percentile-P, or auto, "
        "which takes the one nearest to FP32 (default entropy, for fp8 minmax; with --max-drop auto)",
        metavar="METHOD",
    )
    smooth: float | None = option(
        None, "SmoothQuant's alpha, 0 to 1 (default none; auto tries several)", metavar="ALPHA"
    )
    keep: str | None = option(
        None,
        "GEMMs to keep out of 8 bits: names or patterns such as '*.ffn.lin2' (default: none; with auto, those found)",
        metavar="A[,B]",
    )
    residual: str | None = option(
        None, "type that residual additions read in INT8 for TensorRT (default float16)", choices=("float16", "int8")
    )
    views: str | None = option(
        None,
        "graphs for other releases: rtx for TensorRT-RTX, trt8 for TensorRT 8.6 (default: those an engine needs)",
        metavar="rtx,trt8",
    )
    calib_data: str | None = option(
        None,
        "folder whose train.* has the calibration rows, or one file of them (default: the data's)",
        metavar="PLACE",
    )
    calibration: str | None = option(None, "calibration.json or TensorRT cache of an earlier run", metavar="FILE")
    max_length: int | None = option(
        None, "truncation length (default 128, or the model's if less)", metavar="N", least=2
    )
    atol: float = option(1e-4, "largest |logit difference| of the export", metavar="X")
    calibrator: str = option(
        "own", "source of the INT8 ranges: own, or tensorrt for TensorRT 10's calibrator", choices=("own", "tensorrt")
    )
    attention: str = option(
        "native",
        "build: native, by TensorRT itself, or plugin, by its plugins; eval on torch: eager, sdpa, or without padding "
        "flash, flex, packed",
        choices=("native", "plugin", *ATTENTIONS),
    )
    batch_size: str | None = option(
        None, "rows per batch of an engine, or one number for all three (default 1,32,128)", metavar="MIN,OPT,MAX"
    )
    seq_len: str | None = option(None, "tokens per row of an engine (default 1,64,<max length>)", metavar="MIN,OPT,MAX")
    buckets: str | None = option(
        None, "one optimisation profile for each length instead (default: one for all)", metavar="16,32,64,128"
    )
    workspace_mb: int | None = option(
        None, "workspace memory that TensorRT may use (default: its own)", metavar="MB", least=1
    )
    optimization_level: int | None = option(
        None, "TensorRT's builder optimisation level, 0 to 5 (its default is 3)", metavar="N", least=0
    )
    version_compatible: bool = option(
        False, "build a plan that later TensorRT versions load too; it is somewhat slower"
    )
    hardware_compatible: str = option("none", "build a plan for other GPUs too", choices=HARDWARE)
    cuda_graphs: bool = option(False, "capture a CUDA graph of each shape and replay it")
    halves: bool = option(False, "round float16 tensors to float16 on a CPU, as a GPU does (ort)")
    compile: bool = option(False, "compile the model with torch.compile (torch)")
    max_drop: float | None = option(
        None,
        "gate: refuse a larger drop of the task's metric, in points, 1/100 (default: no gate; tune and heal 0.5)",
        metavar="POINTS",
    )
    confidence: float = option(0.95, "confidence of the gate's one-sided interval", metavar="SHARE")
    strict: bool = option(False, "fail a gate that cannot tell")
    budget: int = option(40, "number of graphs that a search may evaluate", metavar="N", least=2)
    limit: int | None = option(None, "evaluate the first N rows only (default: all)", metavar="N", least=1)
    energy: bool = option(False, "measure energy too, under its own load")
    energy_window: float = option(30.0, "length of a measurement window, at least 5", metavar="S")
    energy_windows: int | None = option(None, "number of windows (default 5; compare 10)", metavar="N", least=1)
    energy_warmup: float = option(120.0, "longest warm-up", metavar="S")
    energy_batch_sizes: str | None = option(None, "measure batches of these sizes too", metavar="1,8,32")
    rate: float | None = option(
        None, "measure energy at this number of requests per second, with the idle time between them", metavar="R"
    )
    require_energy: bool = option(False, "exit with 4 if energy cannot be measured")
    carbon_intensity: float | None = option(
        None, "carbon intensity of your electricity, to show grams of CO2", metavar="G_PER_KWH"
    )
    pue: float = option(1.0, "power usage effectiveness of your data centre", metavar="X")
    scenario: str | None = option(None, "run a scenario of MLPerf too, under its LoadGen", choices=SCENARIOS)
    min_duration: float | None = option(
        None, "duration of the scenario, at least 1 (default 600, as MLPerf requires)", metavar="S"
    )
    target_qps: float | None = option(
        None, "server: arriving rows per second; offline: expected rows per second (default as measured)", metavar="R"
    )
    target_latency_ms: float | None = option(None, "server: limit of the 99th percentile (default 10)", metavar="MS")
    trust: str | None = option(None, "refuse a bundle with another digest", metavar="DIGEST")
    seed: int = option(0, "seed of every random choice", metavar="N", least=0)
    allow_pickle: bool = option(False, "load pickled checkpoints, which can run code")
    trust_remote_code: bool = option(False, "run the code in a hub repository")
    ignore_unused: str | None = option(
        None, "weights that the model may leave unused: names or patterns such as 'lm_head.*'", metavar="A[,B]"
    )
    force: bool = option(False, "redo steps that are up to date")
    reuse: str | None = option(
        None,
        "a bundle of the same checkpoint, or a folder with bundles: in place of an export, its graph is copied and "
        "compared with the checkpoint. Name only bundles that you trust",
        metavar="DIR",
    )
    dry_run: bool = option(False, "print the steps that would run, and run none")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        check_together(self)

    def flags(self, names: Sequence[str]) -> list[str]:
        """Return those of these keys that differ from their defaults as words of a command line."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in names if getattr(self, name) != defaults[name]}
        values = {name: format(value, "g") if isinstance(value, float) else str(value) for name, value in given.items()}
        return [word for name in given for word in (flag(name), *([] if given[name] is True else [values[name]]))]

    @property
    def wants_energy(self) -> bool:
        """Whether energy will be measured."""
        return self.energy or self.require_energy

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The sizes of `energy_batch_sizes`.

        Raises:
            UsageError: they are not whole numbers of at least 1.
        """
        parts = [part.strip() for part in (self.energy_batch_sizes or "").split(",") if part.strip()]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UsageError(f"--energy-batch-sizes {self.energy_batch_sizes}: not numbers from 1. Write 1,8,32.")
        return tuple(map(int, parts))

    @property
    def reading(self) -> Reading:
        """Where rows are read from, and how."""
        return {
            "data": self.data,
            "split_column": self.split_column,
            "validation_share": self.validation_share,
            "text_join": self.text_join,
        }

    @property
    def range_method(self) -> str:
        """The range method: `calib_method`, or else auto if there is a gate to pass, because it loses less accuracy."""
        own = QUANTIZED[self.precision if self.precision in QUANTIZED else "int8"].method
        return self.calib_method or ("auto" if self.max_drop is not None else own)

    @property
    def gives_cache(self) -> bool:
        """Whether `calibration` names a TensorRT cache instead of a calibration.json."""
        return self.calibration is not None and self.calibration.endswith(".cache")

    @classmethod
    def values(cls, flags: Mapping[str, Any], *, sets: Sequence[str] = (), file: Path | None = None) -> dict[str, Any]:
        """Combine a recipe file, `--set` assignments and flags, in rising precedence, and check them.

        Raises:
            InputError: the file cannot be read as TOML.
            UsageError: a key is unknown, a value is not allowed, or the file gives a key of COMMAND_LINE_ONLY.
        """
        values: dict[str, Any] = load_recipe(file) if file else {}
        for assignment in sets:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set {assignment}: no '='. Write --set key=value.")
            values[key.strip().replace("-", "_")] = toml_value(text.strip())
        values = {key: joined(value) for key, value in values.items()}
        values |= {key: value for key, value in flags.items() if value is not None}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            where = file if file and not sets else "recipe"
            hint = meant(unknown[0], known)
            raise UsageError(f"{where}: unknown key {unknown[0]!r}.{hint} Known: {', '.join(sorted(known))}.")
        try:
            cls(**values)
        except UsageError as error:
            raise UsageError(f"{file}: {error}" if file and not sets else str(error)) from None
        return values

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe that has these values, and defaults for the rest."""
        return cls(**cls.values(values))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with `changes`."""
        return dataclasses.replace(self, **changes)
