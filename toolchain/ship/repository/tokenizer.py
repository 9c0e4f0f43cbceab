"""Triton's model NAME_tokenizer: texts to token ids, padded to a length bucket so that requests can be merged.

Copied as it is into the repository; needs numpy and tokenizers. Python 3.8 and later.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"])
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "settings.json"), encoding="utf-8") as file:
            self.settings = json.load(file)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Tokenise the texts of all requests at once; what is wrong with one request concerns it alone."""
        answers: list[Any] = []
        texts: list[Any] = []
        spans: list[tuple[int, int]] = []
        for request in requests:
            try:
                own = self.read(request)
            except ValueError as error:
                answers.append(refused(str(error)))
            else:
                answers.append(None)
                spans.append((len(texts), len(texts) + len(own)))
                texts += own
        encodings = self.tokenizer.encode_batch(texts) if texts else []
        padded = iter([self.pad(encodings[start:end]) for start, end in spans])
        return [next(padded) if answer is None else answer for answer in answers]

    def read(self, request: Any) -> list[Any]:
        """Return a request's texts, or pairs of them; ValueError says what is wrong with them."""
        columns = [self.column(request, name) for name in self.settings["texts"]]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("TEXT and TEXT_PAIR differ in their number")
        return columns[0] if len(columns) == 1 else list(zip(*columns))

    def column(self, request: Any, name: str) -> list[str]:
        most, texts = self.settings["max_characters"], []
        for data in pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1):
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{name} is not UTF-8") from None
            if len(text) > most:  # before it costs anything: a megabyte would hold up every other request
                raise ValueError(f"{name} has {len(text)} characters; at most {most} are taken")
            texts.append(text)
        return texts

    def pad(self, encodings: list[Any]) -> Any:
        """Return tensors [texts, length], where length is the least bucket that holds the longest text."""
        longest = max([len(encoding.ids) for encoding in encodings] or [0])
        length = next((bucket for bucket in self.settings["buckets"] if bucket >= longest), longest)
        tensors = []
        for output in self.settings["outputs"]:
            array = np.full((len(encodings), length), output["pad"], dtype=output["dtype"])
            for row, encoding in enumerate(encodings):
                ids = getattr(encoding, output["attribute"])
                array[row, : len(ids)] = ids
            tensors.append(pb_utils.Tensor(output["name"], array))
        return pb_utils.InferenceResponse(tensors)


def refused(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(output_tensors=[], error=error)
