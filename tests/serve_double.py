"""A service without an engine: the logits of a row are the length of its text, or the sum of its token ids, and the
negative of that.

It checks requests and makes responses as the real one does. `gate` holds requests back while it is clear, `fault` is
raised instead of a response, and `cancelled` is set when a request is cancelled while it waits.
"""

import asyncio

import numpy as np

from tests.head_of import head_of
from toolchain.serve.checks import Checks, check_model
from toolchain.serve.counters import Counters
from toolchain.serve.limits import Limits
from toolchain.serve.metadata import Description
from toolchain.serve.outputs import tensors
from toolchain.serve.protocol import InferResponse

HEAD = head_of("long", "short")
SIZES = {"input_ids": 100, "attention_mask": 2}


class Double:
    name, version, texts_per_row, ready, alive = "demo", "1", 1, True, True

    def __init__(self, **limits):
        self.limits = Limits(**limits)
        self.counters = Counters()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = None
        self.cancelled = asyncio.Event()
        self.seen = []
        self._checks = Checks(self.name, 1, SIZES, 16, dict.fromkeys(SIZES, 0), self.limits, head_of("a", "b").outputs)

    async def infer(self, request):
        self.seen.append(request)
        check_model(self.name, request.model, request.version)
        names, rows = self._checks.outputs(request), self._checks.rows(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.fault is not None:
            raise self.fault
        sums = [len(row[0]) for row in rows] if isinstance(rows, list) else list(map(sum, rows.columns["input_ids"]))
        logits = np.array([[value, -value] for value in sums], np.float32)
        outputs = tensors(logits, HEAD, names, request.classes)
        return InferResponse(self.name, self.version, request.id, outputs)

    @property
    def description(self):
        server = {"name": "toolchain", "version": "1.2.3", "extensions": ["binary_tensor_data", "statistics"]}
        shapes = {"LABEL": ("BYTES", 1), "SCORE": ("FP32", 2), "LOGITS": ("FP32", 2)}
        outputs = [{"name": name, "datatype": kind, "shape": [-1, size]} for name, (kind, size) in shapes.items()]
        inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}]
        model = {"name": "demo", "versions": ["1"], "platform": "toolchain", "inputs": inputs, "outputs": outputs}
        policy = {"timeout_action": "REJECT", "default_timeout_microseconds": 30_000_000, "max_queue_size": 1024}
        config = {
            "name": "demo",
            "platform": "toolchain",
            "backend": "toolchain",
            "max_batch_size": 64,
            "input": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1], "optional": True}],
            "output": [{"name": "LOGITS", "data_type": "TYPE_FP32", "dims": [2]}],
            "dynamic_batching": {"default_queue_policy": policy},
            "model_transaction_policy": {"decoupled": False},
        }
        return Description(server, model, config)

    def statistics(self):
        return {"model_stats": [self.counters.statistics("demo", "1")]}
