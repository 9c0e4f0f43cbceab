"""The service's description of itself: the protocol's metadata, and Triton's model configuration."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolchain import __version__
from toolchain.base.tensors import TEXT_INPUTS
from toolchain.evaluation.target import Target
from toolchain.records.serving import (
    ConfigTensor,
    ModelConfig,
    ModelMetadata,
    Parameter,
    ServerMetadata,
    TensorMetadata,
)
from toolchain.serve.checks import VERSION
from toolchain.serve.limits import Limits

EXTENSIONS = (
    "classification",
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def server_metadata() -> ServerMetadata:
    """Return the server's metadata."""
    return {"name": "toolchain", "version": __version__, "extensions": list(EXTENSIONS)}


@dataclass(frozen=True)
class ModelDescription:
    """A model's name, its target, the names of its token inputs, and its outputs.

    `outputs` are name -> numbers of a row, or None for a text.

    Every input is optional, because a request sends texts or token ids, never both. The metadata cannot express this;
    only the configuration can.
    """

    name: str
    target: Target
    token_inputs: tuple[str, ...]
    outputs: Mapping[str, int | None]

    @property
    def _text_inputs(self) -> tuple[str, ...]:
        return TEXT_INPUTS[: self.target.resolved.head.texts_per_row]

    @property
    def _platform(self) -> str:
        return f"toolchain_{self.target.backend}"

    @property
    def _parameters(self) -> dict[str, Parameter]:
        """The digest of the bundle, by which a client can tell which bundle is served."""
        return {"bundle_sha256": {"string_value": self.target.bundle.digest}} if self.target.bundle else {}

    def metadata(self) -> ModelMetadata:
        """Return the protocol's model metadata; a size of -1 is chosen by the client."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self._platform,
            "inputs": [
                *(TensorMetadata(name=name, datatype="BYTES", shape=[-1, 1]) for name in self._text_inputs),
                *(TensorMetadata(name=name, datatype="INT64", shape=[-1, -1]) for name in self.token_inputs),
            ],
            "outputs": [
                TensorMetadata(name=name, datatype="BYTES" if width is None else "FP32", shape=[-1, width or 1])
                for name, width in self.outputs.items()
            ],
        }

    def config(self, limits: Limits) -> ModelConfig:
        """Return Triton's ModelConfig in its JSON form; dims are without the batch."""
        return {
            "name": self.name,
            "platform": self._platform,
            "backend": "toolchain",
            "max_batch_size": limits.max_batch,
            "input": [
                *(
                    ConfigTensor(name=name, data_type="TYPE_STRING", dims=[1], optional=True)
                    for name in self._text_inputs
                ),
                *(
                    ConfigTensor(name=name, data_type="TYPE_INT64", dims=[-1], optional=True)
                    for name in self.token_inputs
                ),
            ],
            "output": [
                ConfigTensor(name=name, data_type="TYPE_STRING" if width is None else "TYPE_FP32", dims=[width or 1])
                for name, width in self.outputs.items()
            ],
            "dynamic_batching": {
                "max_queue_delay_microseconds": 0,
                "default_queue_policy": {
                    "timeout_action": "REJECT",
                    "default_timeout_microseconds": round(limits.timeout_s * 1e6),
                    "allow_timeout_override": True,
                    "max_queue_size": limits.max_queue,
                },
            },
            "model_transaction_policy": {"decoupled": False},
            "parameters": self._parameters,
        }
