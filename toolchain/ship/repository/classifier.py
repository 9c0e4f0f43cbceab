"""Triton's model NAME_classifier in the python backend: ONNX Runtime on the CPU.

`ship triton` copies this file into the repository. It needs numpy, onnxruntime and Python 3.8 or later.
"""

from __future__ import annotations

import json
import os
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it at import

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        instances = sum(int(group.get("count", 1)) or 1 for group in config.get("instance_group", [])) or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, processors() // instances)
        if saturates():
            # ONNX Runtime then uses a kernel that is exact on such a processor, but slower on others.
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Threads that spin between requests would take CPU time from the server and the tokenizer.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests as one batch. They are equally long in tokens, because Triton merges only such requests."""
        try:
            feeds = {name: np.concatenate([column(request, name) for request in requests]) for name in self.inputs}
            logits = self.session.run(["logits"], feeds)[0].astype(np.float32)
        except Exception as error:  # the message may name files, so only the log gets it
            pb_utils.Logger.log_error(str(error))
            failed = pb_utils.TritonError("the engine failed on this batch", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(output_tensors=[], error=failed) for _ in requests]
        responses: list[Any] = []
        start = 0
        for request in requests:
            end = start + len(column(request, self.inputs[0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits[start:end])]))
            start = end
        return responses


def saturates(about: str = "/proc/cpuinfo") -> bool:
    """Return whether this x86 processor adds products of uint8 x int8 in 16 bits, which can saturate.

    It does if it has AVX2 but neither VNNI nor AMX.
    """
    try:
        with open(about, encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags)


def processors(limit: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Return the number of CPUs that this container may use: its CPU set, capped by its cgroup quota."""
    count = len(os.sched_getaffinity(0))
    try:
        with open(limit, encoding="ascii") as file:
            quota_us, period_us = file.read().split()
    except OSError:  # no cgroup, or cgroups of version 1
        return count
    return count if quota_us == "max" else max(1, min(count, -(-int(quota_us) // int(period_us))))


def column(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
