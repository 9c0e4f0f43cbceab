"""The contenders of run.py: runtimes for one model, DistilBERT-base with random weights, on rows as long as sst2's.

To add one, add its line to CONTENDERS. All contenders take padded batches of token ids.
"""

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph
from toolchain.base.tensors import Infer
from toolchain.checkpoint.export import export
from toolchain.checkpoint.model import Source, find_model
from toolchain.checkpoint.tokenize import Tokens, budget_batches
from toolchain.data import demo
from toolchain.energy.load import Piece, pieces
from toolchain.runtimes import open_runtime

LENGTHS = Path(__file__).with_name("sst2_lengths.json")
BASE = {"initializer_range": 0.04}  # at transformers' 0.02 the logits of all rows are nearly equal
SMALL = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "initializer_range": 0.1}
CLS, SEP, WORDS = 101, 102, (1000, 30522)
BASELINE = "transformers eager, batch 32"
BASELINE_BATCH = 32
# Padded positions of a batch, by type of device. Each of our runtimes runs with the fastest of these.
BUDGETS = {"cpu": (1024,), "cuda": (4096, 16384, 65536)}


@dataclass(frozen=True)
class Place:
    """What all contenders share: the device, the checkpoint, and the tokenised rows.

    The graphs are written into the checkpoint's folder.
    """

    device: str
    source: Source
    tokens: Tokens

    @property
    def kind(self) -> str:
        """The type of the device without its index: `cpu` or `cuda`."""
        return self.device.partition(":")[0]

    @functools.cached_property
    def full_graph(self) -> Path:
        """The path of the checkpoint's float32 graph, which is exported on first access."""
        made = self.source.folder / "model.onnx"
        export(self.source, made)
        return made

    @functools.cached_property
    def half_graph(self) -> Path:
        """The path of the fused float16 graph for ONNX Runtime on CUDA, which is made on first access."""
        from toolchain.graph.fp16 import to_half
        from toolchain.graph.ort_cuda import for_cuda

        made, model = self.source.folder / "model.fp16.cuda.onnx", graph.load(self.full_graph)
        for_cuda(model)
        to_half(model)
        graph.save(model, made)
        return made


@dataclass(frozen=True)
class Contender:
    """A contender: the function that opens it, and the precision and backend that its utilisation is computed for.

    If `gpu_only`, it is left out on a CPU. If `as_filed`, it takes the rows in file order, 32 at a time; otherwise its
    batches are sorted by length.
    """

    open: Callable[[Place], AbstractContextManager[Infer]]
    precision: str
    backend: str = "torch"
    gpu_only: bool = True
    as_filed: bool = False

    def precision_on(self, place: Place) -> str:
        """Return the precision on this device.

        It is `precision`, except that the baseline uses float32 on a CPU, where float16 is slow.
        """
        return "fp32" if self.as_filed and place.kind == "cpu" else self.precision

    def work(self, place: Place) -> list[list[Piece]]:
        """Return the ways to batch the rows from which run.py takes the fastest; each is a list of padded batches."""
        if self.as_filed:
            return [pieces(place.tokens, batches_of_file(len(place.tokens)))]
        lengths = place.tokens.lengths
        return [pieces(place.tokens, budget_batches(lengths, max_slots=slots)) for slots in BUDGETS[place.kind]]


def batches_of_file(rows: int) -> list[np.ndarray]:
    """Return the row indices of each batch: `rows` rows in file order, BASELINE_BATCH (32) per batch."""
    return [np.arange(start, min(start + BASELINE_BATCH, rows)) for start in range(0, rows, BASELINE_BATCH)]


def make_place(folder: Path, device: str, *, rows: int, small: bool = False) -> Place:
    """Write the checkpoint into `folder`, and make `rows` rows of random token ids that are as long as sst2's rows.

    With `small`, the model is much smaller, for tests.
    """
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    DistilBertForSequenceClassification(DistilBertConfig(**(SMALL if small else BASE))).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # a checkpoint has one, and its export runs sentences
        shutil.copy(demo.FOLDER / name, folder)
    known, words = json.loads(LENGTHS.read_text())["lengths"], np.random.default_rng(0)
    lengths = [known[row % len(known)] for row in range(rows)]
    ids = [[CLS, *words.integers(*WORDS, length - 2).tolist(), SEP] for length in lengths]
    columns = {"input_ids": ids, "attention_mask": [[1] * length for length in lengths]}
    return Place(device, find_model(str(folder)), Tokens(columns, {"input_ids": 0, "attention_mask": 0}))


@contextmanager
def _transformers(place: Place) -> Iterator[Infer]:
    """Yield the baseline, the code that a user of transformers would write, with eager attention.

    It copies each batch to the device, runs the model in float16 (float32 on a CPU), and copies the logits back.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    dtype = {"fp32": torch.float32, "fp16": torch.float16}[CONTENDERS[BASELINE].precision_on(place)]
    folder = place.source.folder
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model = model.eval().to(place.device)

    def infer(batch: Any) -> Any:
        with torch.no_grad():
            inputs = {name: torch.from_numpy(array).long().to(place.device) for name, array in batch.items()}
            return model(**inputs).logits.float().cpu().numpy()

    yield infer


def _torch(precision: str = "fp16", *, gpu_only: bool = True, **choices: Any) -> Contender:
    def opened(place: Place) -> AbstractContextManager[Infer]:
        return open_runtime("torch", place.source, device=place.device, precision=precision, **choices)

    return Contender(opened, precision, gpu_only=gpu_only)


def _ort(precision: str, *, gpu_only: bool = True, **choices: Any) -> Contender:
    def opened(place: Place) -> AbstractContextManager[Infer]:
        file = place.full_graph if precision == "fp32" else place.half_graph
        return open_runtime("ort", file, device=place.device, precision=precision, **choices)

    return Contender(opened, precision, backend="ort", gpu_only=gpu_only)


REFERENCE = _torch("fp32", gpu_only=False)

# Name -> contender. Ratios are relative to the first contender, which runs in the same rounds.
CONTENDERS = {
    BASELINE: Contender(_transformers, "fp16", gpu_only=False, as_filed=True),
    "torch fp32": REFERENCE,
    "torch bf16": _torch("bf16", gpu_only=False),
    "torch fp32 compiled": _torch("fp32", gpu_only=False, compiled=True),
    "torch fp16": _torch(attention="sdpa"),
    "torch fp16 graphs": _torch(attention="sdpa", cuda_graphs=True),
    "torch fp16 compiled": _torch(attention="sdpa", compiled=True),
    "torch fp16 compiled graphs": _torch(attention="sdpa", compiled=True, cuda_graphs=True),
    "torch fp16 flash": _torch(attention="flash"),
    "torch fp16 flex": _torch(attention="flex"),
    "torch fp16 packed": _torch(attention="packed"),
    "torch int8 compiled": _torch("int8", compiled=True),
    "torch fp8 compiled": _torch("fp8", compiled=True),
    "ort fp32": _ort("fp32", gpu_only=False),
    "ort fp16 fused": _ort("fp16"),
    "ort fp16 fused graphs": _ort("fp16", cuda_graphs=True),
}
