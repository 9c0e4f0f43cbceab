"""The service's description of itself: the protocol's metadata, and Triton's model configuration.

Every input is optional, because a request sends texts or token ids, never both. The metadata cannot express this; only
the configuration can.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Description:
    """The protocol's metadata of the server and of the model, and the model's configuration in Triton's JSON form."""

    server: ServerMetadata
    model: ModelMetadata
    config: ModelConfig


def describe(name: str, target: Target, limits: Limits) -> Description:
    """Return the description of a model. A dimension of -1 may have any size.

    The configuration has the parameter `bundle_sha256`, the digest of the bundle. It tells clients which bundle is
    served.
    """
    head, platform = target.resolved.head, f"toolchain_{target.backend}"
    texts = [_tensor(text, "BYTES", 1) for text in TEXT_INPUTS[: head.texts_per_row]]
    inputs = [*texts, *(_tensor(ids, "INT64", -1) for ids in target.resolved.source.facts.values)]
    outputs = [_tensor(one, "BYTES" if width is None else "FP32", width or 1) for one, width in head.outputs.items()]
    config: ModelConfig = {
        "name": name,
        "platform": platform,
        "backend": "toolchain",
        "max_batch_size": limits.max_batch,
        "input": [{**_configured(tensor), "optional": True} for tensor in inputs],
        "output": [*map(_configured, outputs)],
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
    return Description(
        {"name": "toolchain", "version": __version__, "extensions": list(EXTENSIONS)},
        {"name": name, "versions": [VERSION], "platform": platform, "inputs": inputs, "outputs": outputs},
        config,
    )


def _tensor(name: str, datatype: str, size: int) -> TensorMetadata:
    return {"name": name, "datatype": datatype, "shape": [-1, size]}


def _configured(tensor: TensorMetadata) -> ConfigTensor:
    """Return a tensor's entry in Triton's model configuration, in which `dims` lacks the batch dimension."""
    return {"name": tensor["name"], "data_type": CONFIG_TYPES[tensor["datatype"]], "dims": tensor["shape"][1:]}
