"""One graph to look into, from a bundle or a bare ONNX file, and the rows to try it on."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.bundle import MANIFEST, Bundle
from toolchain.bundle.resolved import ResolvedRecipe
from toolchain.checkpoint.model import VOCABULARY_FILES, Source, find_model, load_tokenizer
from toolchain.checkpoint.tokenize import Tokens, encode
from toolchain.data.rows import Text
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.evaluation.target import backend_of, find_reference, find_target
from toolchain.int8.calibrate import read_calibration
from toolchain.int8.coverage import constant_behind
from toolchain.recipe.tables import is_remote
from toolchain.runtimes.parity import probe_texts
from toolchain.runtimes.remote import Server

ROWS = 64
CALIBRATION = "calibration.json"
RANDOM_LENGTHS = (3, 40)
RANDOM_MAX_LENGTH = 128
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class ProbeGraph:
    """A graph, a plan or a checkpoint, what it came from if that is at hand, and rows to try both on.

    `reference` is the FP32 graph, `fp32` the name, backend and model of what is compared with: PyTorch where it can be.
    `calibration` is the bundle's calibration.json, if it has one.
    """

    file: Path
    model: Source | Path
    choices: dict[str, Any]
    backend: str
    device: str
    precision: str
    reference: Path | None
    fp32: tuple[str, str, Source | Path] | None
    tokens: Tokens
    empty: Tokens
    unknown_id: int
    vocabulary: int
    max_length: int
    rows: str
    calibration: Path | None = None


def open_probe_graph(place: Path | None, changes: dict[str, Any], *, graphs_only: bool = False) -> ProbeGraph:
    """Return the artefact at `place`: of a bundle the one for `backend`, this device or `file`, or an ONNX file.

    Rows are train rows that nothing was calibrated with, where the bundle's data are at hand; else built-in
    sentences; of a bare file without a tokenizer (`model` names one) random token ids.

    Raises:
        ToolchainError: see errors.py.
    """
    if place is not None and place.suffix == ".onnx":
        if (place.parent / MANIFEST).exists():
            return open_probe_graph(place.parent, {**changes, "file": place.name}, graphs_only=graphs_only)
        return _bare(place, changes)
    asked = backend_of(changes)
    if is_remote(asked) or (graphs_only and asked == "torch"):
        raise UsageError(f"--backend {asked}: has no graph to look into. Choose ort or trt.")
    here = {"device": "cpu"} if asked == "ort" else {}  # a graph is looked at on the CPU, where nobody says otherwise
    target = find_target({**here, **changes, "backend": asked}, place)
    if target.bundle is None:
        raise UsageError("needs a bundle or an ONNX file. Name one, or make one: toolchain build --precision int8.")
    resolved = target.resolved
    texts, rows = _texts(target.bundle, resolved)
    tokenizer = resolved.tokenizer
    model = target.model
    assert not isinstance(model, Server)
    return ProbeGraph(
        file=model if isinstance(model, Path) else model.folder,
        model=model,
        choices=target.choices,
        backend=target.backend,
        device=target.device,
        precision=target.precision,
        reference=target.bundle.file("model.onnx") if target.file != "model.onnx" else None,
        fp32=None if target.is_reference else find_reference(target),
        tokens=resolved.encode(texts),
        empty=resolved.encode([("",) * len(resolved.task.text_columns)]),
        unknown_id=_unknown(tokenizer),
        vocabulary=vocabulary_size(graph.load(target.bundle.file("model.onnx"))),
        max_length=resolved.max_length,
        rows=rows,
        calibration=target.bundle.file(CALIBRATION) if CALIBRATION in target.bundle.manifest["artefacts"] else None,
    )


def _texts(bundle: Bundle, resolved: ResolvedRecipe) -> tuple[list[Text], str]:
    if resolved.recipe.data is not None or resolved.task.folder is not None:
        with contextlib.suppress(ToolchainError):
            used: list[str] = []
            if CALIBRATION in bundle.manifest["artefacts"]:
                used = read_calibration(bundle.file(CALIBRATION)).about.get("row_sha256", [])
            rows = resolved.rows_without(used).sample(ROWS, seed=resolved.recipe.seed)
            return rows.texts, f"{len(rows)} train rows that nothing was calibrated with"
    texts = probe_texts(len(resolved.task.text_columns))
    return texts, f"{len(texts)} built-in sentences"


def _bare(file: Path, changes: dict[str, Any]) -> ProbeGraph:
    model = graph.load(file)
    if not len(model.graph):
        raise InputError(f"{file}: an empty graph. Give another.")
    inputs = tuple(str(value.name) for value in model.graph.inputs)
    if "input_ids" not in inputs or "attention_mask" not in inputs or set(inputs) - set(NAMES):
        raise InputError(f"{file}: its inputs are {', '.join(inputs)}, not those of an encoder. Give another graph.")
    logits = next((value for value in model.graph.outputs if value.name == "logits"), None)
    if logits is None or (logits.shape is not None and len(logits.shape) != 2):
        raise InputError(f"{file}: has no output logits [batch, classes]. Give the graph of a classifier.")
    if any(isinstance(size, int) for value in model.graph.inputs for size in value.shape or ()):
        raise InputError(f"{file}: its batch or length is fixed. Export it with both dynamic.")
    vocabulary = vocabulary_size(model)

    def probe(tokens: Tokens, empty: Tokens, unknown_id: int, rows: str) -> ProbeGraph:
        device = changes.get("device") or "cpu"
        return ProbeGraph(
            file,
            file,
            {"device": device},
            "ort",
            device,
            _precision(model),
            None,
            None,
            tokens,
            empty,
            unknown_id,
            vocabulary,
            length,
            rows,
        )

    named = changes.get("model")
    folder = find_model(named).folder if named else file.parent
    length = changes.get("max_length") or RANDOM_MAX_LENGTH
    if named or any(found for pattern in VOCABULARY_FILES for found in folder.glob(pattern)):
        tokenizer = load_tokenizer(folder)
        texts = probe_texts(1)

        def tokens(texts: list[Text]) -> Tokens:
            return encode(tokenizer, texts, max_length=length, inputs=inputs)

        rows = f"{len(texts)} built-in sentences"
        return probe(tokens(texts), tokens([("",)]), _unknown(tokenizer), rows)
    generator = np.random.default_rng(changes.get("seed") or 0)
    sizes = [*generator.integers(*RANDOM_LENGTHS, ROWS), 2]
    ids = [generator.integers(0, vocabulary, size).tolist() for size in sizes]
    columns = {
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "token_type_ids": [[0] * len(row) for row in ids],
    }
    made = Tokens({name: columns[name] for name in inputs}, dict.fromkeys(inputs, 0))
    rows = f"{ROWS} rows of random token ids (give -m CHECKPOINT for sentences)"
    return probe(made, made.take(np.array([ROWS])), 0, rows)


def _unknown(tokenizer: Any) -> int:
    return int(tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id)


def vocabulary_size(model: ir.Model) -> int:
    """Return the number of rows of the table that token ids look up."""
    for node in graph.nodes(model, "Gather"):
        table, source = constant_behind(node.inputs[0]), node.inputs[1]
        while source is not None and (maker := source.producer()) is not None and maker.op_type == "Cast":
            source = maker.inputs[0]
        if table is not None and source is not None and source.name == "input_ids":
            return len(table)
    return 1


def _precision(model: ir.Model) -> str:
    if any(True for _ in graph.nodes(model, "QuantizeLinear", "DequantizeLinear")):
        return "int8"
    half = any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())
    return "fp16" if half else "fp32"
