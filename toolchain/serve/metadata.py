"""What the service says about itself and its model: the protocol's metadata, Triton's configuration."""

from dataclasses import dataclass
from typing import Any

from toolchain import __version__
from toolchain.evaluation.target import Target
from toolchain.serve.checks import VERSION
from toolchain.serve.limits import Limits
from toolchain.tensors import TEXT_INPUTS

EXTENSIONS = (
    "classification",
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "toolchain", "version": __version__, "extensions": list(EXTENSIONS)}


@dataclass(frozen=True)
class Card:
    """A model's name, what it runs, the inputs of ids that it also takes, and how many classes it has.

    Every input is optional, since a request brings texts or ids, never both; only the configuration can say so.
    """

    name: str
    target: Target
    ids: tuple[str, ...]
    classes: int

    @property
    def _texts(self) -> tuple[str, ...]:
        return TEXT_INPUTS[: len(self.target.resolved.task.text_columns)]

    @property
    def _platform(self) -> str:
        return f"toolchain_{self.target.backend}"

    @property
    def _parameters(self) -> dict[str, Any]:
        """What a client may hold the server to: which bundle it is."""
        return {"bundle_sha256": {"string_value": self.target.bundle.digest}} if self.target.bundle else {}

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata; -1 is a size that the client chooses."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self._platform,
            "inputs": [
                *({"name": name, "datatype": "BYTES", "shape": [-1, 1]} for name in self._texts),
                *({"name": name, "datatype": "INT64", "shape": [-1, -1]} for name in self.ids),
            ],
            "outputs": [
                {"name": "LABEL", "datatype": "BYTES", "shape": [-1, 1]},
                {"name": "SCORE", "datatype": "FP32", "shape": [-1, self.classes]},
                {"name": "LOGITS", "datatype": "FP32", "shape": [-1, self.classes]},
            ],
        }

    def config(self, limits: Limits) -> dict[str, Any]:
        """Return Triton's ModelConfig as its JSON; the rows of a batch are not among the dims."""
        queue = {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": round(limits.timeout_s * 1e6),
            "allow_timeout_override": True,
            "max_queue_size": limits.max_queue,
        }
        return {
            "name": self.name,
            "platform": self._platform,
            "backend": "toolchain",
            "max_batch_size": limits.max_batch,
            "input": [
                *({"name": name, "data_type": "TYPE_STRING", "dims": [1], "optional": True} for name in self._texts),
                *({"name": name, "data_type": "TYPE_INT64", "dims": [-1], "optional": True} for name in self.ids),
            ],
            "output": [
                {"name": "LABEL", "data_type": "TYPE_STRING", "dims": [1]},
                {"name": "SCORE", "data_type": "TYPE_FP32", "dims": [self.classes]},
                {"name": "LOGITS", "data_type": "TYPE_FP32", "dims": [self.classes]},
            ],
            "dynamic_batching": {"max_queue_delay_microseconds": 0, "default_queue_policy": queue},
            "model_transaction_policy": {"decoupled": False},
            "parameters": self._parameters,
        }
