"""Recipes: every choice that changes a result, from flags, `--set` and TOML files.

A recipe is plain data. Its keys are the options of the command line with `_` for `-`. A flag overrides `--set`, which
overrides the recipe's file, which overrides the default. The command line is made from the class below, so an option
means the same in every command.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict

from toolchain.errors import UsageError
from toolchain.recipe.options import check, joined, load_toml, option, toml_value
from toolchain.recipe.tables import BACKENDS, METHODS, capturing, is_method, is_remote

DEFAULT_MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Implementations of attention in PyTorch: see runtimes/attention.py.
ATTENTIONS = ("eager", "sdpa", "flash", "flex", "packed")

# TensorRT's hardware compatibility levels.
HARDWARE = ("none", "same-compute-capability", "ampere-plus")
# Options of a TensorRT engine. They change no graph.
ENGINE = (
    "calibrator",
    "attention",
    "batch_size",
    "seq_len",
    "buckets",
    "workspace_mb",
    "optimization_level",
    "version_compatible",
    "hardware_compatible",
)

# Options of the energy measurement.
ENERGY = (
    "energy",
    "energy_window",
    "energy_windows",
    "energy_warmup",
    "energy_batch_sizes",
    "rate",
    "require_energy",
    "carbon_intensity",
    "pue",
)

# Scenarios of MLPerf.
SCENARIOS = ("single-stream", "offline", "server")

# Options of a run under MLPerf's LoadGen.
MLPERF = ("scenario", "min_duration", "target_qps", "target_latency_ms")


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
        f"hub id, local checkpoint or `demo` (default {DEFAULT_MODEL})",
        short="-m",
        metavar="ID_OR_DIR",
    )
    task: str | None = option(
        None,
        "a GLUE task, demo, custom, or a TOML file (default sst2; demo for the model demo)",
        metavar="NAME_OR_TOML",
    )
    data: str | None = option(
        None,
        "folder with train.* and validation.* (tsv, csv, json, jsonl, parquet, also the hub's "
        "data/train-00000-of-00001), folder of save_to_disk, or one file with --split-column or --validation-share",
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
    label_column: str | None = option(None, "label column (task custom)", metavar="L")
    precision: str | None = option(
        None, "number type (default to build: fp16 with a GPU, int8 without; to evaluate: as built)", choices=PRECISIONS
    )
    backend: str | None = option(None, "where to run", choices=BACKENDS.keys())
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
    file: str | None = option(None, "artefact of the bundle to run", metavar="NAME")
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
        "which takes the one nearest to FP32 (default entropy; with --max-drop auto)",
        metavar="METHOD",
    )
    smooth: float | None = option(
        None, "SmoothQuant's alpha, 0 to 1 (default none; auto tries several)", metavar="ALPHA"
    )
    keep: str | None = option(
        None, "GEMMs to keep out of INT8: names or patterns such as '*.ffn.lin2'", metavar="A[,B]"
    )
    residual: str | None = option(
        None, "type that residual additions read in INT8 for TensorRT (default float16)", choices=("float16", "int8")
    )
    views: str | None = option(
        None, "graphs for other releases: rtx for TensorRT-RTX, trt8 for TensorRT 8.6", metavar="rtx,trt8"
    )
    calib_data: str | None = option(
        None, "folder whose train.* has the calibration rows instead, or one file of them", metavar="PLACE"
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
    buckets: str | None = option(None, "one optimisation profile for each length instead", metavar="16,32,64,128")
    workspace_mb: int | None = option(None, "workspace memory that TensorRT may use", metavar="MB", least=1)
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
        None, "gate: refuse a larger drop of the task's metric, in points (1/100)", metavar="POINTS"
    )
    confidence: float = option(0.95, "confidence of the gate's one-sided interval", metavar="SHARE")
    strict: bool = option(False, "fail a gate that cannot tell")
    budget: int = option(40, "number of graphs that a search may evaluate", metavar="N", least=2)
    limit: int | None = option(None, "evaluate the first N rows only", metavar="N", least=1)
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
    dry_run: bool = option(False, "print the steps that would run, and run none")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if not 0 < self.atol < math.inf:
            raise UsageError(f"--atol {self.atol}: not a number above 0. Give a tolerance such as 1e-4.")
        self._check_calibration()
        self._check_engine()
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise UsageError(f"--max-drop {self.max_drop}: not a number from 0. Give points such as 0.5.")
        if not 0.5 < self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence}: not above 0.5 and below 1. Give a share such as 0.95.")
        if self.strict and self.max_drop is None:
            raise UsageError("--strict: there is no gate. Give --max-drop POINTS.")
        self._check_energy()
        self._check_scenario()
        if self.attention in ATTENTIONS and self.backend not in (None, "torch"):
            raise UsageError(
                f"--attention {self.attention}: cannot be used with --backend {self.backend}. Choose --backend torch."
            )
        self._check_server()
        self._check_columns()
        self._check_halves()

    def _check_columns(self) -> None:
        if self.task == "custom" and not (self.text_column and self.label_column):
            raise UsageError("--task custom: needs --text-column A[,B] and --label-column L. Name the columns.")
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise UsageError(f"--validation-share {self.validation_share:g}: not between 0 and 1. Give 0.2 or so.")
        if self.validation_share is not None and self.split_column:
            raise UsageError("--validation-share: not with --split-column, which has each row's split. Leave one out.")

    def _check_calibration(self) -> None:
        if self.range_method != "auto" and not is_method(self.range_method):
            known = ", ".join([*METHODS, "auto", "percentile-P with P above 50 and up to 100"])
            raise UsageError(f"--calib-method {self.calib_method}: unknown. Choose one of {known}.")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise UsageError(f"--smooth {self.smooth}: not from 0 to 1. Give an alpha such as 0.5.")

    def _check_engine(self) -> None:
        if self.optimization_level is not None and self.optimization_level > 5:
            raise UsageError(f"--optimization-level {self.optimization_level}: above 5. Give 0 to 5.")
        if self.calibrator == "tensorrt" and self.attention != "plugin":
            raise UsageError(
                "--calibrator tensorrt: TensorRT ignores it where it fuses attention itself, and would "
                "run in floating point. Add --attention plugin, or leave it out for ranges of our own."
            )
        if self.version_compatible and self.attention == "plugin":
            raise UsageError(
                "--version-compatible: not with --attention plugin: later TensorRT versions need not have its plugins. "
                "Leave one of them out."
            )
        if self.gives_cache and self.calibrator != "tensorrt":
            raise UsageError(
                f"--calibration {self.calibration}: a TensorRT cache goes with --calibrator tensorrt and "
                "--attention plugin. Add them, or give a calibration.json."
            )
        if self.compile and self.backend not in (None, "torch"):
            raise UsageError(f"--compile: cannot be used with --backend {self.backend}. Choose --backend torch.")
        if self.cuda_graphs and self.backend not in (None, *capturing()):
            raise UsageError(
                f"--cuda-graphs: cannot be used with --backend {self.backend}. Choose {', '.join(capturing())}."
            )

    def _check_server(self) -> None:
        remote = is_remote(self.backend)
        if remote and not self.url:
            raise UsageError(f"--backend {self.backend}: needs a server. Give --url http://HOST:PORT.")
        if not remote and (self.url or self.token_file):
            raise UsageError("--url, --token-file: only with --backend triton or service. Add it, or leave them out.")
        if remote and self.wants_energy:
            raise UsageError(
                f"--energy: cannot be used with --backend {self.backend}: joules are spent where the server runs. "
                "Look at its /metrics, or run `toolchain power` there."
            )

    def _check_energy(self) -> None:
        least = {"energy_window": 5, "energy_warmup": 0, "rate": 0, "carbon_intensity": 0, "pue": 1}
        for name, low in least.items():
            value, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is not None and not (low <= value < math.inf and (value or name != "rate")):
                raise UsageError(f"{flag} {value:g}: too small or not a number. Give {low} or more.")
        _ = self.batch_sizes
        if not self.wants_energy and (self.rate is not None or self.batch_sizes):
            raise UsageError("--rate and --energy-batch-sizes: only with --energy. Add it, or leave them out.")
        if self.rate is not None and self.batch_sizes:
            raise UsageError("--rate: not with --energy-batch-sizes: requests at a fixed rate come one by one.")

    def _check_halves(self) -> None:
        if not self.halves:
            return
        if self.backend not in (None, "ort") or self.device not in ("auto", "cpu"):
            raise UsageError(
                "--halves: only with --backend ort on the CPU; a GPU computes float16 itself. Leave it out."
            )
        if self.wants_energy or self.scenario:
            option = "--scenario" if self.scenario else "--energy"
            raise UsageError(f"{option}: not with --halves, which emulates float16 on the CPU. Leave one of them out.")

    def _check_scenario(self) -> None:
        given = {name: getattr(self, name) for name in MLPERF[1:] if getattr(self, name) is not None}
        users = {"min_duration": SCENARIOS, "target_qps": ("offline", "server"), "target_latency_ms": ("server",)}
        for name, value in given.items():
            flag = f"--{name.replace('_', '-')}"
            if self.scenario not in users[name]:
                raise UsageError(f"{flag} {value:g}: only with --scenario {' or '.join(users[name])}. Add it.")
            least = 1 if name == "min_duration" else 0.001
            if not least <= value < math.inf:
                raise UsageError(f"{flag} {value:g}: too small or not a number. Give {least} or more.")
        if self.scenario == "server" and self.target_qps is None:
            raise UsageError("--scenario server: no rate. Give --target-qps R, below the rows/s that eval shows.")

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
        return self.calib_method or ("auto" if self.max_drop is not None else "entropy")

    @property
    def gives_cache(self) -> bool:
        """Whether `calibration` names a TensorRT cache instead of a calibration.json."""
        return self.calibration is not None and self.calibration.endswith(".cache")

    @classmethod
    def values(cls, flags: Mapping[str, Any], *, sets: Sequence[str] = (), file: Path | None = None) -> dict[str, Any]:
        """Combine a recipe file, `--set` assignments and flags, in rising precedence, and check them.

        Raises:
            InputError: the file cannot be read as TOML.
            UsageError: a key is unknown or a value is not allowed.
        """
        values: dict[str, Any] = load_toml(file) if file else {}
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
            raise UsageError(f"{where}: unknown key {unknown[0]!r}. Known: {', '.join(sorted(known))}.")
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
