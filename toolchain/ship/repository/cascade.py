"""Triton's model NAME_cascade: a first stage answers the rows of which it is sure, and the classifier answers the rest.

`ship triton` copies this file into the repository. It needs numpy and Python 3.8 or later.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FIRST, SECOND = "first", "second"


class StageError(Exception):
    """A model refused a batch or failed on it; `error` is Triton's error object."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.error = error


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "stages.json"), encoding="utf-8") as file:
            self.settings = json.load(file)
        stages = self.settings["stages"]
        self.inputs = [one["name"] for one in json.loads(args["model_config"])["input"]]
        version = int(args["model_version"])
        self.second = model(stages[SECOND], version)
        self.first = model(stages[FIRST], version) if FIRST in stages else lexical(folder, self.settings["vocabulary"])
        self.family, self.counts = counters(self.settings["name"], args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests as one batch. They are equally long in tokens, because Triton merges only such requests."""
        columns = {name: [column(request, name) for request in requests] for name in self.inputs}
        try:
            logits, rest, failed = self.run({name: np.concatenate(parts) for name, parts in columns.items()})
        except StageError as error:
            return [refusal(error) for _ in requests]
        responses: list[Any] = []
        start = 0
        for part in columns[self.inputs[0]]:
            own = slice(start, start + len(part))
            start = own.stop
            if failed and rest[own].any():
                responses.append(refusal(failed))
                continue
            stage = np.where(rest[own], SECOND, FIRST).astype(np.object_).reshape(-1, 1)
            tensors = [pb_utils.Tensor("logits", logits[own]), pb_utils.Tensor("STAGE", stage)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses

    def run(self, batch: dict[str, Any]) -> Any:
        """Return the logits of a batch; which rows went to the second stage, bool [rows]; and the second stage's error.

        The error is None if the second stage did not fail.

        Raises:
            StageError: the first stage failed.
        """
        logits = np.array(self.first(batch), np.float32)
        best = np.partition(logits, -2, axis=1)
        rest = ~(best[:, -1] - best[:, -2] >= np.float32(self.settings["threshold"]))
        failed: StageError | None = None
        if rest.any():
            try:
                logits[rest] = self.second({name: array[rest] for name, array in batch.items()})
            except StageError as error:
                failed = error
        for stage, rows in ((FIRST, int((~rest).sum())), (SECOND, 0 if failed else int(rest.sum()))):
            if rows and stage in self.counts:
                self.counts[stage].increment(rows)
        return logits, rest, failed

    def finalize(self) -> None:
        self.counts = {}  # the counters must be freed before their metric family
        self.family = None


def refusal(failed: StageError) -> Any:
    error = pb_utils.TritonError(str(failed), failed.error.code())
    return pb_utils.InferenceResponse(output_tensors=[], error=error)


def model(stage: dict[str, Any], version: int) -> Any:
    """Return the function that runs a batch in another model of the server."""
    memory = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)

    def run(batch: dict[str, Any]) -> Any:
        batch = shortened(batch, stage["buckets"])
        request = pb_utils.InferenceRequest(
            model_name=stage["model"],
            model_version=version,
            requested_output_names=["logits"],
            inputs=[
                pb_utils.Tensor(name, np.ascontiguousarray(batch[name], dtype=dtype))
                for name, dtype in stage["inputs"].items()
            ],
            preferred_memory=memory,
        )
        response = request.exec()
        if response.has_error():
            raise StageError(response.error())
        return pb_utils.get_output_tensor_by_name(response, "logits").as_numpy()

    return run


def shortened(batch: dict[str, Any], buckets: list[int]) -> dict[str, Any]:
    """Return a batch cut to the smallest of `buckets` that still contains every token; only padding is cut off.

    Batches of a model whose answers depend on padding have no padding, so they stay as they are.
    """
    length = next(iter(batch.values())).shape[1]
    longest = int(mask_of(batch).sum(axis=1).max())
    length = next((bucket for bucket in buckets if longest <= bucket <= length), length)
    return {name: array[:, :length] for name, array in batch.items()}


def mask_of(batch: dict[str, Any]) -> Any:
    """Return the attention mask of a batch; all ones if the model has no mask, because it gets no padding then."""
    ids = batch["input_ids"]
    return batch.get("attention_mask", np.ones_like(ids))


def lexical(folder: str, vocabulary: int) -> Any:
    """Return the function that runs a batch in the linear model whose files are beside this one."""
    sys.path.append(folder)
    from tfidf import linear

    with np.load(os.path.join(folder, "lexical.npz"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("keys", "idf", "weights", "bias")}
    return lambda batch: linear(batch["input_ids"], mask_of(batch), vocabulary=vocabulary, **arrays)


def counters(name: str, version: str) -> Any:
    """Return the metric family, and its counter for each stage; None and an empty dict if the server has no metrics."""
    try:
        family = pb_utils.MetricFamily(
            name="toolchain_cascade_rows",
            description="Rows that each stage of a cascade answered",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        labels = [{"model": name, "version": version, "stage": stage} for stage in (FIRST, SECOND)]
        return family, {one["stage"]: family.Metric(labels=one) for one in labels}
    except Exception as error:  # an older server, or one that was started without metrics
        pb_utils.Logger.log_warn("the rows of each stage are not counted: " + str(error))
        return None, {}


def column(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
