"""The service's description of itself: the protocol's metadata, and Triton's model configuration.

Every input is optional, because a request sends texts or token ids, never both. The metadata cannot express this; only
the configuration can.
"""

from toolchain import __version__
from toolchain.base.tensors import TEXT_INPUTS
from toolchain.evaluation.target import Target
from toolchain.records.serving import ConfigTensor, ModelConfig, ModelMetadata, ServerMetadata, TensorMetadata
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

# Datatype of the protocol -> the data type of Triton's configuration.
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "INT64": "TYPE_INT64", "FP32": "TYPE_FP32"}

# Name, datatype, and numbers of a row, -1 if the client chooses.
Described = tuple[str, str, int]


def server_metadata() -> ServerMetadata:
    """Return the server's metadata."""
    return {"name": "toolchain", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, target: Target) -> ModelMetadata:
    """Return the protocol's metadata of a model; a size of -1 is chosen by the client."""

    def tensor(described: Described) -> TensorMetadata:
        tensor_name, datatype, size = described
        return {"name": tensor_name, "datatype": datatype, "shape": [-1, size]}

    return {
        "name": name,
        "versions": [VERSION],
        "platform": f"toolchain_{target.backend}",
        "inputs": [*map(tensor, _inputs(target))],
        "outputs": [*map(tensor, _outputs(target))],
    }


def model_config(name: str, target: Target, limits: Limits) -> ModelConfig:
    """Return Triton's ModelConfig in its JSON form; dims are without the batch.

    Its parameter is the digest of the bundle, by which a client can tell which bundle is served.
    """

    def tensor(described: Described) -> ConfigTensor:
        tensor_name, datatype, size = described
        return {"name": tensor_name, "data_type": CONFIG_TYPES[datatype], "dims": [size]}

    return {
        "name": name,
        "platform": f"toolchain_{target.backend}",
        "backend": "toolchain",
        "max_batch_size": limits.max_batch,
        "input": [{**tensor(described), "optional": True} for described in _inputs(target)],
        "output": [*map(tensor, _outputs(target))],
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
        "parameters": {"bundle_sha256": {"string_value": target.bundle.digest}} if target.bundle else {},
    }


def _inputs(target: Target) -> list[Described]:
    resolved = target.resolved
    texts = [(name, "BYTES", 1) for name in TEXT_INPUTS[: resolved.head.texts_per_row]]
    return [*texts, *((name, "INT64", -1) for name in resolved.source.facts.values)]


def _outputs(target: Target) -> list[Described]:
    outputs = target.resolved.head.outputs.items()
    return [(name, "BYTES" if width is None else "FP32", width or 1) for name, width in outputs]
