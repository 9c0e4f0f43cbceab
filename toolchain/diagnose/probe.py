"""Open the artefact that `verify` and `explain` examine, from a bundle or an ONNX file, and the rows that they run."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.bundle import MANIFEST, Bundle
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.checkpoint.faults import has_vocabulary
from toolchain.checkpoint.model import Source, find_model, load_tokenizer
from toolchain.checkpoint.tokenize import TextEncoder, Tokens
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.evaluation.target import backend_of, find_reference, find_target
from toolchain.heads.contract import Head
from toolchain.int8.calibrate import read_calibration
from toolchain.int8.coverage import constant_behind
from toolchain.recipe.options import RecipeValues
from toolchain.recipe.tables import BACKENDS, is_remote
from toolchain.runtimes.remote import Server

# Number of rows that `verify` and `explain` run.
ROWS = 64

CALIBRATION = "calibration.json"

# Inputs that the graph of an encoder may have.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Without a tokenizer, rows are random. RANDOM_LENGTHS: their shortest length, and their longest length plus 1.
# RANDOM_MAX_LENGTH: the truncation length. All are in tokens.
RANDOM_LENGTHS = (3, 40)
RANDOM_MAX_LENGTH = 128


@dataclass(frozen=True)
class ProbeGraph:
    """A graph, a plan or a checkpoint, its references, and rows to run on all of them.

    Attributes:
        file: path of the graph or the plan, or folder of the checkpoint.
        model: the argument of `open_runtime`.
        choices: keyword arguments of `open_runtime`, which each backend defines.
        backend: the backend that runs it.
        device: `cpu` or `cuda:N`.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        reference: the bundle's FP32 graph; None outside a bundle, and if `file` is that graph.
        fp32: name, backend and model of the FP32 reference, which is the checkpoint in PyTorch if it is available;
            None outside a bundle, and if the artefact itself is the reference.
        tokens: the rows to run, as tokens.
        empty: one row with an empty text.
        unknown_id: token id of unknown words.
        vocabulary: number of token ids.
        max_length: truncation length, tokens.
        rows: description of the rows.
        calibration: the bundle's calibration.json, if it has one.
        head: the head of the bundle's model; None for a graph alone.
    """

    file: Path
    model: Source | Path
    choices: dict[str, Any]  # each backend has its own keyword arguments
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
    head: Head | None = None


def open_probe_graph(place: Path | None, changes: RecipeValues, *, graphs_only: bool = False) -> ProbeGraph:
    """Return the artefact at `place`, a bundle or an ONNX file, with rows to run.

    `changes` are keys of a recipe. They choose the artefact of a bundle: `file`, or the one for `backend` and `device`.
    With `graphs_only`, a checkpoint in PyTorch is refused.

    The rows are train rows that were not used for calibration, if the bundle's data are available; otherwise they are
    built-in sentences. An ONNX file outside a bundle gets built-in sentences if a tokenizer is beside it or `model`
    names one, or else random token ids.

    Raises:
        ToolchainError: see errors.py.
    """
    if place is not None and place.suffix == ".onnx":
        if (place.parent / MANIFEST).exists():
            return open_probe_graph(place.parent, {**changes, "file": place.name}, graphs_only=graphs_only)
        return _open_file(place, changes)
    asked = backend_of(changes)
    if is_remote(asked) or (graphs_only and asked == "torch"):
        raise UsageError(f"--backend {asked}: this backend runs no file that can be examined. Choose ort or trt.")
    default = {"device": "cpu"} if asked == "ort" else {}  # without --device, a graph is examined on the CPU
    target = find_target({**default, **changes, "backend": asked}, place)
    if target.bundle is None:
        raise UsageError(
            "no bundle or ONNX file was given. Name one, or build a bundle: toolchain build --precision int8."
        )
    resolved = target.resolved
    texts, rows = _texts(target.bundle, resolved)
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
        empty=resolved.encode([("",) * resolved.head.texts_per_row]),
        unknown_id=_unknown_id(resolved.tokenizer),
        vocabulary=vocabulary_size(graph.load(target.bundle.file("model.onnx"))),
        max_length=resolved.max_length,
        rows=rows,
        calibration=target.bundle.file(CALIBRATION) if CALIBRATION in target.bundle.manifest["artefacts"] else None,
        head=resolved.head,
    )


def _texts(bundle: Bundle, resolved: ResolvedRecipe) -> tuple[list[Text], str]:
    """Return the texts to run, and a description of them."""
    if resolved.has_local_rows:
        with contextlib.suppress(ToolchainError):  # the data may be gone; then built-in sentences are used
            used: list[str] = []
            if CALIBRATION in bundle.manifest["artefacts"]:
                used = read_calibration(bundle.file(CALIBRATION)).about.get("row_sha256", [])
            rows = resolved.rows_without(used).sample(ROWS, seed=resolved.recipe.seed)
            return rows.texts, f"{len(rows)} train rows that were not used for calibration"
    texts = probe_texts(resolved.head.texts_per_row)
    return texts, f"{len(texts)} built-in sentences"


@dataclass(frozen=True)
class _Rows:
    """The fields of a ProbeGraph that concern its rows."""

    tokens: Tokens
    empty: Tokens
    unknown_id: int
    description: str


def _open_file(file: Path, changes: RecipeValues) -> ProbeGraph:
    """Return an ONNX file outside a bundle, which has no reference, with rows to run."""
    backend = backend_of(changes)
    if backend not in BACKENDS or BACKENDS[backend].runs != "graph":
        raise UsageError(f"--backend {backend}: this backend does not run ONNX files. Choose ort or openvino.")
    model = graph.load(file)
    inputs = _check_encoder(file, model)
    named, device = changes.get("model"), changes.get("device") or "cpu"
    length = changes.get("max_length") or RANDOM_MAX_LENGTH
    vocabulary = vocabulary_size(model)
    folder = find_model(named).folder if named else file.parent
    if named or has_vocabulary(folder):
        rows = _sentences(folder, inputs, length)
    else:
        rows = _random_rows(inputs, vocabulary, seed=changes.get("seed") or 0)
    return ProbeGraph(
        file=file,
        model=file,
        choices={"device": device},
        backend=backend,
        device=device,
        precision=_precision(model),
        reference=None,
        fp32=None,
        tokens=rows.tokens,
        empty=rows.empty,
        unknown_id=rows.unknown_id,
        vocabulary=vocabulary,
        max_length=length,
        rows=rows.description,
    )


def _check_encoder(file: Path, model: ir.Model) -> tuple[str, ...]:
    """Check that a graph is an encoder with a classifier, and return the names of its inputs.

    Raises:
        InputError: the graph is not such an encoder, or its batch or length is fixed.
    """
    if not len(model.graph):
        raise InputError(f"{file}: the graph is empty. Give another one.")
    inputs = tuple(str(value.name) for value in model.graph.inputs)
    if "input_ids" not in inputs or "attention_mask" not in inputs or set(inputs) - set(INPUTS):
        raise InputError(f"{file}: its inputs are {', '.join(inputs)}, not those of an encoder. Give another graph.")
    logits = next((value for value in model.graph.outputs if value.name == "logits"), None)
    if logits is None or (logits.shape is not None and len(logits.shape) not in (2, 3)):
        raise InputError(f"{file}: it has no output `logits` [batch, classes]. Give the graph of a classifier.")
    if any(isinstance(size, int) for value in model.graph.inputs for size in value.shape or ()):
        raise InputError(f"{file}: its batch size or sequence length is fixed. Export it with both dynamic.")
    return inputs


def _sentences(folder: Path, inputs: tuple[str, ...], length: int) -> _Rows:
    """Return the built-in sentences as tokens of the tokenizer in `folder`."""
    tokenizer, texts = load_tokenizer(folder), probe_texts(1)
    encoder = TextEncoder(tokenizer, max_length=length, inputs=inputs)
    description = f"{len(texts)} built-in sentences"
    return _Rows(encoder(texts), encoder([("",)]), _unknown_id(tokenizer), description)


def _random_rows(inputs: tuple[str, ...], vocabulary: int, *, seed: int) -> _Rows:
    """Return rows of random token ids. The row for an empty text has two ids, because BERT adds two special tokens."""
    generator = np.random.default_rng(seed)
    sizes = [*generator.integers(*RANDOM_LENGTHS, ROWS), 2]
    columns = {
        "input_ids": [generator.integers(0, vocabulary, size).tolist() for size in sizes],
        "attention_mask": [[1] * size for size in sizes],
        "token_type_ids": [[0] * size for size in sizes],
    }
    tokens = Tokens({name: columns[name] for name in inputs}, dict.fromkeys(inputs, 0))
    description = f"{ROWS} rows of random token ids (give -m CHECKPOINT for sentences)"
    return _Rows(tokens, tokens.take(np.array([ROWS])), 0, description)


def _unknown_id(tokenizer: Any) -> int:
    return int(tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id)


def vocabulary_size(model: ir.Model) -> int:
    """Return the number of token ids: the rows of the embedding table that they index; 1 if the table is not found."""
    for node in graph.nodes(model, "Gather"):
        table, source = constant_behind(node.inputs[0]), node.inputs[1]
        while source is not None and (maker := source.producer()) is not None and maker.op_type == "Cast":
            source = maker.inputs[0]
        if table is not None and source is not None and source.name == "input_ids":
            return len(table)
    return 1


def _precision(model: ir.Model) -> str:
    if types := {str(node.inputs[0].dtype) for node in graph.nodes(model, "DequantizeLinear") if node.inputs[0]}:
        return "fp8" if types == {"FLOAT8E4M3FN"} else "int8"
    half = any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())
    return "fp16" if half else "fp32"
