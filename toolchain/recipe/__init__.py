"""Recipes: the values of all options that change a result, read from flags, `--set` and TOML files.

A recipe is plain data. Its keys are the options of the command line with `_` for `-`. A flag overrides `--set`, which
overrides the recipe's file, which overrides the default. The command line is made from the class Recipe, so an option
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
    """The keys of a recipe that say where and how rows are read. They are the keyword arguments of `load_rows`."""

    data: str | None
    split_column: str | None
    validation_share: float | None
    text_join: str | None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options of one run; an option that was not given has its default.

    Raises:
        UsageError: on construction, if a value has the wrong type, is out of range, or cannot be used with another.
    """

    model: str | None = option(
        None,
        f"hub id, local checkpoint, or demo, demo-tokens, demo-multilabel (default {DEFAULT_MODEL})",
        short="-m",
        metavar="ID_OR_DIR",
    )
    task: str | None = option(
        None,
        "a GLUE task, demo, custom, or a TOML file (default sst2; for a demo model the task of the same name)",
        metavar="NAME_OR_TOML",
    )
    data: str | None = option(
        None,
        "folder with train.* and validation.* (tsv, csv, json, jsonl, parquet; also named as on the hub, such as "
        "data/train-00000-of-00001), folder that save_to_disk of datasets wrote, or one file with --split-column or "
        "--validation-share (default: the data of the build; else GLUE from the hub)",
        metavar="PLACE",
    )
    split_column: str | None = option(
        None, "column with the name of each row's split, if --data is one file", metavar="C"
    )
    validation_share: float | None = option(
        None,
        "fraction of the rows to use for validation, if --data is one file or a folder without validation.*",
        metavar="SHARE",
    )
    text_join: str | None = option(
        None,
        "separator between the texts or chat turns of a cell that is a list: they are joined to one text",
        metavar="TEXT",
    )
    split: str = option("validation", "split to evaluate", metavar="NAME")
    text_column: str | None = option(
        None, "name of the text column, or of two columns for text pairs (task custom)", metavar="A[,B]"
    )
    label_column: str | None = option(
        None,
        "name of the label column, or of one column for each label, with 1 in the rows that have it (task custom)",
        metavar="L[,M...]",
    )
    threshold: float | None = option(
        None,
        "lowest score at which a row gets a label, for a multi-label classifier (default 0.5)",
        metavar="SHARE",
    )
    precision: str | None = option(
        None,
        "number type of the model (default in a build: fp16 with a GPU, int8 without; to evaluate: as built)",
        choices=PRECISIONS,
    )
    backend: str | None = option(
        None,
        "runtime or server that runs the model; auto, in eval, predict and serve, takes the fastest runtime for CPUs "
        "after a short trial (default: ort, or in serve trt if the bundle has a plan; in a build, graphs for all "
        "runtimes, and an engine if this machine can build one)",
        choices=ChainMap[str, Any]({AUTO: None}, BACKENDS).keys(),
    )
    url: str | None = option(
        None, "address of the server (backends triton and service): http://HOST:PORT[/v2/models/NAME]", metavar="URL"
    )
    token_file: str | None = option(None, "file with the server's bearer token", metavar="FILE")
    target: str | None = option(
        None,
        "GPUs to compile engines for, by name or compute capability; this machine needs none (backend trt-rtx)",
        metavar="t4,l4,sm86",
    )
    device: str = option("auto", "device to run on: auto, cpu or cuda[:N]", metavar="DEVICE")
    file: str | None = option(
        None, "graph or plan of the bundle to run (default: the one for the backend and the device)", metavar="NAME"
    )
    output: str | None = option(
        None,
        "folder of the bundle (default engines/build/<model>-<task>-<precision>)",
        short="-o",
        metavar="DIR",
    )
    calib_samples: int = option(512, "rows to calibrate with", metavar="N", least=1)
    calib_method: str | None = option(
        None,
        "how ranges are chosen: entropy, minmax, mse, percentile (99.99), percentile-P, or auto, which tries them and "
        "takes the one nearest to FP32 (default entropy, for fp8 minmax; with --max-drop auto)",
        metavar="METHOD",
    )
    smooth: float | None = option(
        None, "SmoothQuant's alpha, 0 to 1 (default: no smoothing; --calib-method auto tries several)", metavar="ALPHA"
    )
    keep: str | None = option(
        None,
        "GEMMs to exclude from quantization: names or patterns such as '*.ffn.lin2' (default: none; with --max-drop "
        "and --calib-method auto, the GEMMs that its search found)",
        metavar="A[,B]",
    )
    residual: str | None = option(
        None,
        "type of the inputs of residual additions in INT8 graphs for TensorRT (default float16)",
        choices=("float16", "int8"),
    )
    views: str | None = option(
        None,
        "graphs to make for other TensorRT releases: rtx for TensorRT-RTX, trt8 for TensorRT 8.6 (default: only the "
        "graphs that an engine needs)",
        metavar="rtx,trt8",
    )
    calib_data: str | None = option(
        None,
        "folder whose train.* has the calibration rows, or one file with such rows (default: the rows of --data)",
        metavar="PLACE",
    )
    calibration: str | None = option(
        None, "calibration.json or TensorRT cache of an earlier run, in place of a calibration", metavar="FILE"
    )
    max_length: int | None = option(
        None, "truncation length in tokens (default 128, or the model's limit if less)", metavar="N", least=2
    )
    atol: float = option(
        1e-4, "largest difference allowed between the logits of the exported graph and of PyTorch", metavar="X"
    )
    calibrator: str = option(
        "own",
        "source of the INT8 ranges: own, this project's calibration, or tensorrt, TensorRT 10's calibrator",
        choices=("own", "tensorrt"),
    )
    attention: str = option(
        "native",
        "how attention is computed. In an engine: native (by TensorRT itself) or plugin (by NVIDIA's plugins). In eval "
        "on torch: eager or sdpa, or without padding flash, flex or packed",
        choices=("native", "plugin", *ATTENTIONS),
    )
    batch_size: str | None = option(
        None,
        "smallest, typical and largest number of rows per batch of an engine, or one number for all three (default "
        "1,32,128)",
        metavar="MIN,OPT,MAX",
    )
    seq_len: str | None = option(
        None,
        "smallest, typical and largest number of tokens per row of an engine (default 1,64,<max length>)",
        metavar="MIN,OPT,MAX",
    )
    buckets: str | None = option(
        None,
        "lengths in tokens: the engine gets one optimisation profile for each (default: one profile, of --seq-len)",
        metavar="16,32,64,128",
    )
    workspace_mb: int | None = option(
        None, "workspace memory that TensorRT may use (default: TensorRT's own limit)", metavar="MB", least=1
    )
    optimization_level: int | None = option(
        None, "TensorRT's builder optimisation level, 0 to 5 (its default is 3)", metavar="N", least=0
    )
    version_compatible: bool = option(
        False, "build a plan that later TensorRT versions can load too; it is somewhat slower"
    )
    hardware_compatible: str = option("none", "other GPUs on which the plan must run too", choices=HARDWARE)
    cuda_graphs: bool = option(False, "capture a CUDA graph for each input shape and replay it")
    halves: bool = option(False, "on a CPU, round the results of float16 nodes to float16, as a GPU does (backend ort)")
    compile: bool = option(False, "compile the model with torch.compile (backend torch)")
    max_drop: float | None = option(
        None,
        "gate: fail if the task's metric drops by more than this, in points (1/100) (default: no gate; in tune and "
        "heal 0.5; in cascade that of the build, else 0.5)",
        metavar="POINTS",
    )
    confidence: float = option(0.95, "confidence level of the gate's one-sided interval", metavar="SHARE")
    strict: bool = option(False, "fail also if the gate's verdict is 'cannot tell'")
    budget: int = option(40, "number of graphs that a search may evaluate", metavar="N", least=2)
    limit: int | None = option(None, "evaluate the first N rows only (default: all)", metavar="N", least=1)
    energy: bool = option(False, "also measure energy, while the model runs under a constant load")
    energy_window: float = option(30.0, "length of a measurement window in seconds, at least 5", metavar="S")
    energy_windows: int | None = option(
        None, "number of measurement windows (default 5; in compare 10)", metavar="N", least=1
    )
    energy_warmup: float = option(120.0, "longest warm-up before the first window, in seconds", metavar="S")
    energy_batch_sizes: str | None = option(None, "also measure the energy of batches of these sizes", metavar="1,8,32")
    rate: float | None = option(
        None, "measure energy at this number of requests per second, including the idle time between them", metavar="R"
    )
    require_energy: bool = option(False, "measure energy, and exit with code 4 if it cannot be measured")
    carbon_intensity: float | None = option(
        None, "carbon intensity of your electricity in g/kWh, to show grams of CO2", metavar="G_PER_KWH"
    )
    pue: float = option(1.0, "power usage effectiveness of your data centre, for the grams of CO2", metavar="X")
    scenario: str | None = option(
        None, "also run a scenario of MLPerf Inference, with its load generator LoadGen", choices=SCENARIOS
    )
    min_duration: float | None = option(
        None, "shortest duration of the scenario in seconds, at least 1 (default 600, as MLPerf requires)", metavar="S"
    )
    target_qps: float | None = option(
        None,
        "rows per second that arrive (scenario server) or are expected (offline; default: as measured)",
        metavar="R",
    )
    target_latency_ms: float | None = option(
        None, "limit of the 99th percentile of latency in the scenario server (default 10)", metavar="MS"
    )
    trust: str | None = option(
        None, "refuse the bundle unless its digest (sha256 in bundle.json) is this one", metavar="DIGEST"
    )
    seed: int = option(0, "seed of every random choice", metavar="N", least=0)
    allow_pickle: bool = option(
        False, "load pickled weights, which can run any code: use it only if you trust their source"
    )
    trust_remote_code: bool = option(False, "run the Python code that comes with a checkpoint: read this code first")
    ignore_unused: str | None = option(
        None,
        "weights of the checkpoint that the model may leave unused: names or patterns such as 'lm_head.*'",
        metavar="A[,B]",
    )
    force: bool = option(False, "run all steps again, also those that are up to date")
    reuse: str | None = option(
        None,
        "copy the exported graph from this bundle of the same checkpoint, or from a bundle in this folder, instead of "
        "exporting it; the graph is compared with the checkpoint. Name only bundles that you trust",
        metavar="DIR",
    )
    dry_run: bool = option(False, "print the steps that would run, but run none of them")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        check_together(self)

    def flags(self, names: Sequence[str]) -> list[str]:
        """Return words of a command line that set the options `names`; options with their defaults are left out."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in names if getattr(self, name) != defaults[name]}
        values = {name: format(value, "g") if isinstance(value, float) else str(value) for name, value in given.items()}
        return [word for name in given for word in (flag(name), *([] if given[name] is True else [values[name]]))]

    @property
    def wants_energy(self) -> bool:
        """Whether energy is to be measured: --energy or --require-energy was given."""
        return self.energy or self.require_energy

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes in `energy_batch_sizes`; empty if the option was not given.

        Raises:
            UsageError: one of them is not a whole number of at least 1.
        """
        parts = [part.strip() for part in (self.energy_batch_sizes or "").split(",") if part.strip()]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UsageError(
                f"--energy-batch-sizes {self.energy_batch_sizes}: these are not whole numbers of at least 1. "
                "Write them as in 1,8,32."
            )
        return tuple(map(int, parts))

    @property
    def reading(self) -> Reading:
        """The keyword arguments of `load_rows`, which say where and how rows are read."""
        return {
            "data": self.data,
            "split_column": self.split_column,
            "validation_share": self.validation_share,
            "text_join": self.text_join,
        }

    @property
    def range_method(self) -> str:
        """The method that sets the calibration ranges: `calib_method` if given, or else the default.

        The default is `auto` if the recipe has a gate (`max_drop`), because it loses less accuracy; otherwise it is the
        precision's default.
        """
        own = QUANTIZED[self.precision if self.precision in QUANTIZED else "int8"].method
        return self.calib_method or ("auto" if self.max_drop is not None else own)

    @property
    def gives_cache(self) -> bool:
        """Whether `calibration` names a TensorRT calibration cache (*.cache) instead of a calibration.json."""
        return self.calibration is not None and self.calibration.endswith(".cache")

    @classmethod
    def values(cls, flags: Mapping[str, Any], *, sets: Sequence[str] = (), file: Path | None = None) -> dict[str, Any]:
        """Combine a recipe file, `--set` assignments and flags; check the values, and return them by key.

        A flag overrides an assignment, which overrides the file. Keys that nothing sets are left out.

        Raises:
            InputError: the file cannot be read as TOML.
            UsageError: a key is unknown, a value is not allowed, or the file gives a key of COMMAND_LINE_ONLY.
        """
        values: dict[str, Any] = load_recipe(file) if file else {}
        for assignment in sets:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set {assignment}: it has no '='. Write --set key=value.")
            values[key.strip().replace("-", "_")] = toml_value(text.strip())
        values = {key: joined(value) for key, value in values.items()}
        values |= {key: value for key, value in flags.items() if value is not None}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            where = file if file and not sets else "recipe"
            hint = meant(unknown[0], known)
            raise UsageError(f"{where}: unknown key {unknown[0]!r}.{hint} The keys are {', '.join(sorted(known))}.")
        try:
            cls(**values)
        except UsageError as error:
            raise UsageError(f"{file}: {error}" if file and not sets else str(error)) from None
        return values

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe with these values; the other keys have their defaults."""
        return cls(**cls.values(values))

    def replace(self, **changes: Any) -> Self:
        """Return a copy of the recipe in which the keys in `changes` have new values."""
        return dataclasses.replace(self, **changes)
