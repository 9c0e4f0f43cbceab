"""The demo is worth something: INT8 done with care keeps its accuracy, and done carelessly does not."""

import shutil

import numpy as np
import pytest

from toolchain import graph
from toolchain.checkpoint.model import find_model, load_tokenizer
from toolchain.checkpoint.tokenize import TextEncoder
from toolchain.data.demo import FOLDER
from toolchain.data.rows import load_rows
from toolchain.data.tasks import load_task
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import CPU, TENSORRT, quantize
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run


@pytest.fixture(scope="module")
def setting(demo_bundle, tmp_path_factory):
    source = find_model("demo")
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(demo_bundle / "model.onnx", folder)
    task, tokenizer = load_task(Recipe(task="demo")), load_tokenizer(FOLDER)
    train, validation = (load_rows(task, split) for split in ("train", "validation"))
    tokens = [
        TextEncoder(tokenizer, max_length=128, inputs=source.inputs)(rows.texts)
        for rows in (train.sample(512, seed=0), validation)
    ]
    return folder, *tokens, np.array([int(label) for label in validation.labels])


def accuracy(model, tokens, references):
    with open_runtime("ort", model, device="cpu") as infer:
        return (run(infer, tokens, max_slots=1024).logits.argmax(axis=1) == references).mean()


def test_fp32_is_neither_perfect_nor_chance(setting):
    folder, _, tokens, references = setting
    assert 0.85 < accuracy(folder / "model.onnx", tokens, references) < 0.95


@pytest.mark.parametrize("target", [TENSORRT, CPU], ids=lambda target: target.name)
def test_careful_int8_keeps_it(setting, target):
    folder, train, tokens, references = setting
    model = graph.load(folder / "model.onnx")
    quantize(model, calibrate(model, train, method="entropy"), target)
    graph.save(model, folder / "q.onnx")
    lost = accuracy(folder / "model.onnx", tokens, references) - accuracy(folder / "q.onnx", tokens, references)
    assert lost <= 0.01


def test_careless_int8_loses_it(setting):
    """ONNX Runtime's own tool with its defaults: every operator, one scale a tensor, padded rows, minmax."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    folder, train, tokens, references = setting

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([train.batch(np.arange(start, start + 16), length=64) for start in range(0, 64, 16)])

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(folder / "model.onnx", folder / "careless.onnx", Reader(), **types)
    lost = accuracy(folder / "model.onnx", tokens, references) - accuracy(folder / "careless.onnx", tokens, references)
    assert lost >= 0.03
