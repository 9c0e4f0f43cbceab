"""A simple inference service for comparison: FastAPI, a tokenizer, and a session of ONNX Runtime.

Its requests and responses have the same form as those of `toolchain serve`. uvicorn runs it in a process of its own, as
`fastapi_app:app`. Environment variables configure it: BUNDLE (folder), FILE (graph in it), LABELS (JSON list) and
MAX_LENGTH (tokens).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from tokenizers import Tokenizer

BUNDLE = Path(os.environ["BUNDLE"])
LABELS = json.loads(os.environ["LABELS"])
session = onnxruntime.InferenceSession(BUNDLE / os.environ["FILE"], providers=["CPUExecutionProvider"])
names = [entry.name for entry in session.get_inputs()]
tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
tokenizer.enable_truncation(int(os.environ["MAX_LENGTH"]))
tokenizer.enable_padding()
app = FastAPI()


@app.get("/v2/health/ready")
def ready() -> None:
    pass


@app.post("/v2/models/{name}/infer")
def infer(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the labels, scores and logits of a request's texts, in the Open Inference Protocol.

    FastAPI runs this function in a thread of its pool, because it is not async.
    """
    encoded = tokenizer.encode_batch(request["inputs"][0]["data"])
    feeds = {
        "input_ids": np.array([row.ids for row in encoded], np.int32),
        "attention_mask": np.array([row.attention_mask for row in encoded], np.int32),
        "token_type_ids": np.array([row.type_ids for row in encoded], np.int32),
    }
    logits = session.run(["logits"], {name: feeds[name] for name in names})[0]
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    rows, classes = logits.shape
    return {
        "model_name": name,
        "outputs": [
            {
                "name": "LABEL",
                "datatype": "BYTES",
                "shape": [rows, 1],
                "data": [LABELS[index] for index in logits.argmax(axis=1)],
            },
            {"name": "SCORE", "datatype": "FP32", "shape": [rows, classes], "data": scores.ravel().tolist()},
            {"name": "LOGITS", "datatype": "FP32", "shape": [rows, classes], "data": logits.ravel().tolist()},
        ],
    }
