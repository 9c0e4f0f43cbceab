"""The .proto files of this project against the descriptors in tritonclient's wheel, and against protoc."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.runtime_version import VersionError

from toolchain.serve import proto

FOLDER = Path(proto.__file__).parent
# Messages of which the .proto files have some fields only. A client that reads them drops the other fields.
PARTIAL = ("ModelStatistics",)


def test_the_descriptors_are_those_that_protoc_makes(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools, which generates the descriptors, is absent")
    made = tmp_path / "made"
    names = [path.name for path in sorted(FOLDER.glob("*.proto"))]
    assert protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", *names]) == 0
    kept, made = (descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) for path in (proto.DESCRIPTORS, made))
    assert kept == made


@pytest.fixture(scope="module")
def theirs():
    """A pool of tritonclient's messages. They are only compared, because tritonclient pins another protobuf."""
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("tritonclient is not installed")
    sys.path.insert(0, os.path.join(found.submodule_search_locations[0], "grpc"))
    try:
        import model_config_pb2
        import service_pb2
    except (ImportError, TypeError, VersionError) as error:  # protobuf may be too old for them, or too new
        pytest.skip(f"tritonclient's messages do not load: {error}")
    finally:
        sys.path.pop(0)
    pool = descriptor_pool.DescriptorPool()
    for module in (model_config_pb2, service_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def shape(field):
    """Return everything of a field on which its binary and its JSON form depend."""
    kind = field.message_type or field.enum_type
    group = field.containing_oneof and field.containing_oneof.name
    return field.name, field.number, field.type, field.is_repeated, field.is_required, kind and kind.full_name, group


def nested(message):
    return [message, *(inner for child in message.nested_types for inner in nested(child))]


OURS = [
    message
    for name, kind in proto.MESSAGES.items()
    if name.startswith("inference.")
    for message in nested(kind.DESCRIPTOR)
]


@pytest.mark.parametrize("message", OURS, ids=lambda message: message.full_name)
def test_fields_equal_those_of_the_public_protocol(message, theirs):
    public = {shape(field) for field in theirs.FindMessageTypeByName(message.full_name).fields}
    fields = {shape(field) for field in message.fields}
    assert fields <= public
    assert fields == public or message.name in PARTIAL


def test_enumerations_equal_the_public_ones(theirs):
    file = proto.MESSAGES["inference.ModelConfig"].DESCRIPTOR.file
    enums = [*file.enum_types_by_name.values(), *(enum for message in OURS for enum in message.enum_types)]
    assert len(enums) == 9
    for enum in enums:
        public = theirs.FindEnumTypeByName(enum.full_name)
        assert [(one.name, one.number) for one in enum.values] == [(one.name, one.number) for one in public.values]


def test_methods_equal_the_public_ones_except_shared_memory_traces_and_logs(theirs):
    def signature(method):
        streams = method.client_streaming, method.server_streaming
        return method.name, method.input_type.full_name, method.output_type.full_name, streams

    ours = {signature(method) for method in proto.SERVICES[proto.INFERENCE].methods}
    public = {signature(method) for method in theirs.FindServiceByName(proto.INFERENCE).methods}
    assert ours <= public
    assert all("SharedMemory" in name or name in ("TraceSetting", "LogSettings") for name, *_ in public - ours)


def test_health_is_the_standard_service():
    (method,) = proto.SERVICES[proto.HEALTH].methods
    status = method.output_type.fields_by_name["status"]
    assert (method.full_name, method.input_type.fields_by_name["service"].number) == ("grpc.health.v1.Health.Check", 1)
    assert (status.number, status.enum_type.values_by_name["SERVING"].number) == (1, 1)
