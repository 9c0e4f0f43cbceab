"""Triton's model NAME_decoder: from logits to a label, scores and the logits themselves.

`ship triton` copies this file into the repository. It needs numpy and Python 3.8 or later.
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
        # Only a multi-label classifier has a threshold.
        path = os.path.join(os.path.dirname(path), "threshold.json")
        self.threshold = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.threshold = np.float32(json.load(file))

        # Only a model whose outputs are not those of a classifier has this file: output -> how it is computed from the
        # logits.
        path = os.path.join(os.path.dirname(path), "outputs.json")
        self.outputs = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.outputs = json.load(file)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()
        if self.outputs is None or "ENTITIES" not in self.outputs:
            return self.decode(logits)
        spans, texts = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("spans", "TEXT"))
        tags = [label.decode("utf-8") for label in self.labels]
        rows = zip(texts[:, 0], spans, logits)
        found = [json.dumps(entities(tags, text.decode("utf-8"), *row), ensure_ascii=False) for text, *row in rows]
        column = np.array([text.encode("utf-8") for text in found], dtype=np.object_).reshape(-1, 1)
        return response({"ENTITIES": column})

    def decode(self, logits: Any) -> Any:
        """Return a response with LABEL [n, 1], SCORE and LOGITS [n, classes], or with the outputs in outputs.json."""
        if self.outputs is not None:
            made = {"none": logits, "sigmoid": sigmoid(logits)}
            return response({name: made[how] for name, how in self.outputs.items()})
        if self.threshold is not None:
            score = sigmoid(logits)
            labels = [self.several(row) for row in score >= self.threshold]
        elif len(self.labels) == 1:  # regression: the value itself, in the fewest digits that identify the float32
            score, labels = logits, [str(value).encode("ascii") for value in logits[:, 0]]
        else:
            score, labels = softmax(logits), [self.labels[index] for index in logits.argmax(axis=1)]
        label = np.array(labels, dtype=np.object_).reshape(-1, 1)
        return response({"LABEL": label, "SCORE": score, "LOGITS": logits})

    def several(self, row: Any) -> bytes:
        """Return the labels for which `row` is True, as a JSON list in UTF-8."""
        chosen = [label.decode("utf-8") for label, has in zip(self.labels, row) if has]
        return json.dumps(chosen, ensure_ascii=False).encode("utf-8")


def response(outputs: dict[str, Any]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def entities(tags: list[str], text: str, spans: Any, logits: Any) -> list[dict[str, Any]]:
    """Return the entities of a text. The tag of a word is the tag of its first token.

    `spans` has the word, the start and the end of each token, and `logits` has a number for each token and tag.
    """
    found: list[dict[str, Any]] = []
    scores: list[float] = []
    before, word = "O", -1
    for (number, start, end), row in zip(spans.tolist(), logits):
        if number < 0:
            continue
        if number == word:  # another token of the same word
            if before != "O":
                found[-1]["end"] = end
            continue
        word, tag = number, tags[int(row.argmax())]
        if tag != "O":
            if tag[0] in "BSU" or before == "O" or before[0] in "ESLU" or before[2:] != tag[2:]:
                start += len(text[start:end]) - len(text[start:end].lstrip())
                scores = []
                found.append({"label": tag[2:], "score": 0.0, "start": start, "end": end, "text": ""})
            scores.append(float(softmax(row[None]).max()))
            found[-1].update(score=sum(scores) / len(scores), end=end)
        before = tag
    for one in found:
        one["text"] = text[one["start"] : one["end"]]
    return found


def sigmoid(logits: Any) -> Any:
    wide = np.clip(logits.astype(np.float64), -700, 700)
    return (1 / (1 + np.exp(-wide))).astype(np.float32)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
