"""Triton's model NAME_tokenizer: from texts to token ids, padded to fixed lengths so that Triton can merge requests.

`ship triton` copies this file into the repository. It needs numpy, tokenizers and Python 3.8 or later.
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
        self.tokenizer.encode_special_tokens = self.settings["split_special_tokens"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Tokenise the texts of all requests in one call. Only the requests that are invalid get an error."""
        responses: list[Any] = []
        texts: list[Any] = []
        spans: list[tuple[int, int]] = []
        for request in requests:
            try:
                own = self.read(request)
            except ValueError as error:
                responses.append(refused(str(error)))
            else:
                responses.append(None)
                spans.append((len(texts), len(texts) + len(own)))
                texts += own
        encodings = self.tokenizer.encode_batch(texts) if texts else []
        make = self.equal if self.settings["equal_length"] else self.pad
        padded = iter([make(encodings[start:end]) for start, end in spans])
        return [next(padded) if response is None else response for response in responses]

    def read(self, request: Any) -> list[Any]:
        """Return the texts or text pairs of a request.

        Raises:
            ValueError: the texts are invalid; the message is for the client.
        """
        columns = [self.column(request, name) for name in self.settings["texts"]]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("TEXT and TEXT_PAIR have different numbers of texts")
        return columns[0] if len(columns) == 1 else list(zip(*columns))

    def column(self, request: Any, name: str) -> list[str]:
        limit, texts = self.settings["max_characters"], []
        for data in pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1):
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{name} is not UTF-8") from None
            if len(text) > limit:  # checked before tokenising, because a text of a megabyte would delay other requests
                raise ValueError(f"{name} has {len(text)} characters; the limit is {limit}")
            texts.append(text)
        return texts

    def pad(self, encodings: list[Any]) -> Any:
        """Return tensors [texts, length], where length is the smallest bucket that fits the longest text."""
        longest = max([len(encoding.ids) for encoding in encodings] or [0])
        length = next((bucket for bucket in self.settings["buckets"] if bucket >= longest), longest)
        return self.tensors(encodings, length)

    def equal(self, encodings: list[Any]) -> Any:
        """Return tensors [texts, length] without padding, because padding would change the answers of this model."""
        lengths = {len(encoding.ids) for encoding in encodings}
        if len(lengths) > 1:
            return refused(
                "the texts of a request must have equal numbers of tokens for this model: send each text alone"
            )
        return self.tensors(encodings, max(lengths or {0}))

    def tensors(self, encodings: list[Any], length: int) -> Any:
        """Return a response with the ids [texts, length], and whether each text was truncated [texts, 1].

        For a token classifier, the response also has the positions of the tokens in the text (see `spans`).
        """
        if not all(encoding.ids for encoding in encodings):
            return refused("a text has no token, so the model has no answer")
        tensors = []
        for output in self.settings["outputs"]:
            array = np.full((len(encodings), length), output["pad"], dtype=output["dtype"])
            for row, encoding in enumerate(encodings):
                ids = getattr(encoding, output["attribute"])
                array[row, : len(ids)] = ids
            tensors.append(pb_utils.Tensor(output["name"], array))
        if self.settings.get("spans"):
            tensors.append(pb_utils.Tensor("spans", spans(encodings, length)))
        cut = np.array([[bool(encoding.overflowing)] for encoding in encodings], dtype=np.bool_).reshape(-1, 1)
        tensors.append(pb_utils.Tensor("truncated", cut))
        return pb_utils.InferenceResponse(tensors)


def spans(encodings: list[Any], length: int) -> Any:
    """Return for each token: the index of its word, its start and its end in characters, int32 [texts, length, 3].

    The index is -1 for a token that is not part of a word.
    """
    found = np.full((len(encodings), length, 3), -1, np.int32)
    for row, encoding in enumerate(encodings):
        for at, (word, ends) in enumerate(zip(encoding.word_ids, encoding.offsets)):
            found[row, at] = (-1 if word is None else word, *ends)
    return found


def refused(message: str) -> Any:
    error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(output_tensors=[], error=error)
