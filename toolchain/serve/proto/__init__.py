"""The messages and services of gRPC, and Triton's model configuration, from the .proto files in this folder.

They are made at import from descriptors.binpb, which protoc writes:

    python -m grpc_tools.protoc -I toolchain/serve/proto --descriptor_set_out toolchain/serve/proto/descriptors.binpb \
        grpc_service.proto health.proto model_config.proto

Generated modules are not used, for two reasons. They need a protobuf at least as new as protoc. They also register
their names for the whole process, and tritonclient registers the same names, which would be a conflict.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "descriptors.binpb"

_FILES = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
_POOL = descriptor_pool.DescriptorPool()
for _file in _FILES:
    _POOL.Add(_file)

# Full name of a message, such as inference.ModelInferRequest -> its class. The classes are made at run time, so their
# type is Any. The class of a nested message is an attribute of the outer message's class.
MESSAGES: Mapping[str, Any] = message_factory.GetMessageClassesForFiles([file.name for file in _FILES], _POOL)

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

# Full name of a service -> its descriptor, which lists the methods.
SERVICES: Mapping[str, Any] = {name: _POOL.FindServiceByName(name) for name in (INFERENCE, HEALTH)}
