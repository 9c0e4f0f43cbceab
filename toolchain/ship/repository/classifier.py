"""Triton's model NAME_classifier where no backend of Triton's runs the graph: ONNX Runtime on the CPU.

Copied as it is into the repository; needs numpy and onnxruntime. Python 3.8 and later.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        instances = sum(int(group.get("count", 1)) or 1 for group in config.get("instance_group", [])) or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, processors() // instances)
        # Threads that spin between requests would take the processor from the server and the tokenizer.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests as one batch: Triton's batcher has merged only what has one length."""
        try:
            feeds = {name: np.concatenate([column(request, name) for request in requests]) for name in self.inputs}
            logits = self.session.run(["logits"], feeds)[0].astype(np.float32)
        except Exception as error:  # its text may name files, so the log alone has it
            pb_utils.Logger.log_error(str(error))
            failed = pb_utils.TritonError("the engine failed on this batch", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(output_tensors=[], error=failed) for _ in requests]
        answers: list[Any] = []
        start = 0
        for request in requests:
            end = start + len(column(request, self.inputs[0]))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits[start:end])]))
            start = end
        return answers


def processors(limit: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Return how many processors this container may use: of those it may run on, what its limit grants."""
    found = len(os.sched_getaffinity(0))
    try:
        with open(limit, encoding="ascii") as file:
            quota_us, period_us = file.read().split()
    except OSError:  # the machine itself, or cgroups of version 1
        return found
    return found if quota_us == "max" else max(1, min(found, -(-int(quota_us) // int(period_us))))


def column(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
