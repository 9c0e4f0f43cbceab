"""Triton's model NAME_decoder: logits to a label and scores, and the logits themselves.

Copied as it is into the repository; needs numpy. Python 3.8 and later.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        path = os.path.join(args["model_repository"], args["model_version"], "labels.json")
        with open(path, encoding="utf-8") as file:
            self.labels = [label.encode("utf-8") for label in json.load(file)]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()) for request in requests]

    def answer(self, logits: Any) -> Any:
        if len(self.labels) == 1:  # regression: the value itself, in as few digits as tell it from its neighbours
            score, labels = logits, [str(value).encode("ascii") for value in logits[:, 0]]
        else:
            score, labels = softmax(logits), [self.labels[index] for index in logits.argmax(axis=1)]
        label = np.array(labels, dtype=np.object_).reshape(-1, 1)
        made = {"LABEL": label, "SCORE": score, "LOGITS": logits}
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in made.items()])


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
