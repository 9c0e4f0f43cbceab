"""A service without an engine: its logits are the length of each text and its negative, or the sum of each row's ids.

It checks requests and makes answers as the real one. `gate` holds requests back while it is clear, `fault` is raised
instead of an answer, and `dropped` is set when a request was cancelled while it waited.
"""

import asyncio

import numpy as np

from toolchain.serve import outputs as answers
from toolchain.serve.checks import Checks, check_model
from toolchain.serve.counters import Counters
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import InferResponse

LABELS = ["long", "short"]
SIZES = {"input_ids": 100, "attention_mask": 2}


class Double:
    name, version, texts, ready, alive = "demo", "1", 1, True, True

    def __init__(self, **limits):
        self.limits = Limits(**limits)
        self.counters = Counters()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = None
        self.dropped = asyncio.Event()
        self.seen = []
        self._checks = Checks(self.name, 1, SIZES, 16, dict.fromkeys(SIZES, 0), self.limits)

    def check(self, model, version=""):
        check_model(self.name, model, version)

    async def infer(self, request):
        self.seen.append(request)
        self.check(request.model, request.version)
        outputs, rows = self._checks.outputs(request), self._checks.rows(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise
        if self.fault is not None:
            raise self.fault
        sums = [len(row[0]) for row in rows] if isinstance(rows, list) else list(map(sum, rows.columns["input_ids"]))
        logits = np.array([[value, -value] for value in sums], np.float32)
        made = answers.tensors(logits, LABELS, outputs, request.classes)
        return InferResponse(self.name, self.version, request.id, made)

    def server_metadata(self):
        return {"name": "toolchain", "version": "1.2.3", "extensions": ["binary_tensor_data", "statistics"]}

    def model_metadata(self):
        tensors = {"LABEL": ("BYTES", 1), "SCORE": ("FP32", 2), "LOGITS": ("FP32", 2)}
        outputs = [{"name": name, "datatype": kind, "shape": [-1, size]} for name, (kind, size) in tensors.items()]
        inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}]
        return {"name": "demo", "versions": ["1"], "platform": "toolchain", "inputs": inputs, "outputs": outputs}

    def model_config(self):
        policy = {"timeout_action": "REJECT", "default_timeout_microseconds": 30_000_000, "max_queue_size": 1024}
        return {
            "name": "demo",
            "platform": "toolchain",
            "backend": "toolchain",
            "max_batch_size": 64,
            "input": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1], "optional": True}],
            "output": [{"name": "LOGITS", "data_type": "TYPE_FP32", "dims": [2]}],
            "dynamic_batching": {"default_queue_policy": policy},
            "model_transaction_policy": {"decoupled": False},
        }

    def statistics(self):
        return {"model_stats": [{"name": "demo", "version": "1", **self.counters.statistics()}]}
