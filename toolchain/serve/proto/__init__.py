"""The messages and methods of the gRPC service: those of the .proto files beside this one.

They are made from descriptors.binpb, which protoc writes:

    python -m grpc_tools.protoc -I toolchain/serve/proto --descriptor_set_out toolchain/serve/proto/descriptors.binpb \
        grpc_service.proto health.proto model_config.proto

and not from generated modules: those ask for a protobuf at least as new as protoc was, and put their names into the
pool of the whole process, where tritonclient's, of the same names, could not stand beside them.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "descriptors.binpb"

_FILES = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
_POOL = descriptor_pool.DescriptorPool()
for _file in _FILES:
    _POOL.Add(_file)

MESSAGES: dict[str, Any] = message_factory.GetMessageClassesForFiles([file.name for file in _FILES], _POOL)
"""Full name, such as inference.ModelInferRequest -> the class; messages within messages are its attributes."""

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
SERVICES: dict[str, Any] = {name: _POOL.FindServiceByName(name) for name in (INFERENCE, HEALTH)}
"""Full name -> the descriptor of a service, with its methods."""
