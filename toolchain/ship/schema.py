"""Triton's ModelConfig, field by field, so that a config.pbtxt is read as strictly as Triton reads it.

Source: model_config.proto of triton-inference-server/common, in our own words; a test compares every name, number and
type with the messages that `tritonclient` has. A star marks a repeated field, `a->b` a map, `/x` a choice called x.
"""

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"

ENUMS = {
    "DataType": "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 "
    "TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16",
    "InstanceKind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "SecondaryDeviceKind": "KIND_NVDLA",
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "BatchInputKind": "BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO "
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE BATCH_ITEM_SHAPE_FLATTEN",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
    "ModelPriority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
    "TimeoutAction": "REJECT DELAY",
    "ControlKind": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END CONTROL_SEQUENCE_CORRID",
}
"""Name -> its values, numbered from 0."""

MESSAGES = {
    "ModelConfig": "name string 1, platform string 2, backend string 17, runtime string 25, "
    "version_policy VersionPolicy 3, max_batch_size int32 4, input ModelInput* 5, output ModelOutput* 6, "
    "batch_input BatchInput* 20, batch_output BatchOutput* 21, optimization Optimization 12, "
    "dynamic_batching DynamicBatching 11 /scheduling_choice, "
    "sequence_batching SequenceBatching 13 /scheduling_choice, ensemble_scheduling Ensembling 15 /scheduling_choice, "
    "instance_group InstanceGroup* 7, default_model_filename string 8, cc_model_filenames string->string 9, "
    "metric_tags string->string 10, parameters string->Parameter 14, model_warmup Warmup* 16, "
    "model_operations Operations 18, model_transaction_policy TransactionPolicy 19, "
    "model_repository_agents RepositoryAgents 23, response_cache ResponseCache 24, model_metrics Metrics 26",
    "VersionPolicy": "latest Latest 1 /policy_choice, all All 2 /policy_choice, specific Specific 3 /policy_choice",
    "Latest": "num_versions uint32 1",
    "All": "",
    "Specific": "versions int64* 1",
    "ModelInput": "name string 1, data_type DataType 2, format Format 3, dims int64* 4, reshape Reshape 5, "
    "is_shape_tensor bool 6, allow_ragged_batch bool 7, optional bool 8, is_non_linear_format_io bool 9",
    "ModelOutput": "name string 1, data_type DataType 2, dims int64* 3, reshape Reshape 5, label_filename string 4, "
    "is_shape_tensor bool 6, is_non_linear_format_io bool 7",
    "Reshape": "shape int64* 1",
    "BatchInput": "kind BatchInputKind 1, target_name string* 2, data_type DataType 3, source_input string* 4",
    "BatchOutput": "target_name string* 1, kind BatchOutputKind 2, source_input string* 3",
    "Optimization": "graph Graph 1, priority ModelPriority 2, cuda Cuda 3, execution_accelerators Accelerators 4, "
    "input_pinned_memory PinnedMemory 5, output_pinned_memory PinnedMemory 6, "
    "gather_kernel_buffer_threshold uint32 7, eager_batching bool 8",
    "Graph": "level int32 1",
    "Cuda": "graphs bool 1, busy_wait_events bool 2, graph_spec GraphSpec* 3, output_copy_stream bool 4",
    "GraphSpec": "batch_size int32 1, input string->GraphShape 2, graph_lower_bound LowerBound 3",
    "GraphShape": "dim int64* 1",
    "LowerBound": "batch_size int32 1, input string->GraphShape 2",
    "Accelerators": "gpu_execution_accelerator Accelerator* 1, cpu_execution_accelerator Accelerator* 2",
    "Accelerator": "name string 1, parameters string->string 2",
    "PinnedMemory": "enable bool 1",
    "QueuePolicy": "timeout_action TimeoutAction 1, default_timeout_microseconds uint64 2, "
    "allow_timeout_override bool 3, max_queue_size uint32 4",
    "DynamicBatching": "preferred_batch_size int32* 1, max_queue_delay_microseconds uint64 2, "
    "preserve_ordering bool 3, priority_levels uint64 4, default_priority_level uint64 5, "
    "default_queue_policy QueuePolicy 6, priority_queue_policy uint64->QueuePolicy 7",
    "SequenceBatching": "direct StrategyDirect 3 /strategy_choice, oldest StrategyOldest 4 /strategy_choice, "
    "max_sequence_idle_microseconds uint64 1, control_input ControlInput* 2, state State* 5, iterative_sequence bool 6",
    "Control": "kind ControlKind 1, int32_false_true int32* 2, fp32_false_true float* 3, bool_false_true bool* 5, "
    "data_type DataType 4",
    "ControlInput": "name string 1, control Control* 2",
    "InitialState": "data_type DataType 1, dims int64* 2, zero_data bool 3 /state_data, "
    "data_file string 4 /state_data, name string 5",
    "State": "input_name string 1, output_name string 2, data_type DataType 3, dims int64* 4, "
    "initial_state InitialState* 5, use_same_buffer_for_input_output bool 6, use_growable_memory bool 7",
    "StrategyDirect": "max_queue_delay_microseconds uint64 1, minimum_slot_utilization float 2",
    "StrategyOldest": "max_candidate_sequences int32 1, preferred_batch_size int32* 2, "
    "max_queue_delay_microseconds uint64 3, preserve_ordering bool 4",
    "Ensembling": "step Step* 1, max_inflight_requests uint32 2",
    "Step": "model_name string 1, model_version int64 2, input_map string->string 3, output_map string->string 4, "
    "model_namespace string 5",
    "InstanceGroup": "name string 1, kind InstanceKind 4, count int32 2, rate_limiter RateLimiter 6, gpus int32* 3, "
    "secondary_devices SecondaryDevice* 8, profile string* 5, passive bool 7, host_policy string 9",
    "SecondaryDevice": "kind SecondaryDeviceKind 1, device_id int64 2",
    "RateLimiter": "resources Resource* 1, priority uint32 2",
    "Resource": "name string 1, global bool 2, count uint32 3",
    "Parameter": "string_value string 1",
    "Warmup": "name string 1, batch_size uint32 2, inputs string->WarmupInput 3, count uint32 4",
    "WarmupInput": "data_type DataType 1, dims int64* 2, zero_data bool 3 /input_data_type, "
    "random_data bool 4 /input_data_type, input_data_file string 5 /input_data_type",
    "Operations": "op_library_filename string* 1",
    "TransactionPolicy": "decoupled bool 1",
    "RepositoryAgents": "agents Agent* 1",
    "Agent": "name string 1, parameters string->string 2",
    "ResponseCache": "enable bool 1",
    "Metrics": "metric_control MetricControl* 1",
    "MetricControl": "metric_identifier MetricIdentifier 1, histogram_options HistogramOptions 2 /metric_options",
    "MetricIdentifier": "family string 1",
    "HistogramOptions": "buckets double* 1",
}
"""Name -> its fields: name, type and number of each."""


@functools.cache
def message_class() -> Any:
    """Return the class of ModelConfig messages; its pool is its own, so it meets no other copy of the protocol."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package=PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _add(message, field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.ModelConfig"))


def _add(message: Any, words: list[str]) -> None:
    """Add the field that `words` describe: name, type, number and perhaps a choice."""
    name, kind, number = words[0], words[1], int(words[2])
    kinds = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
    if kind.endswith("*") or "->" in kind:
        field.label = kinds.LABEL_REPEATED
    if "->" in kind:
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for index, part in enumerate(kind.split("->")):
            _add(entry, [("key", "value")[index], part, str(index + 1)])
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{entry.name}"
        return
    kind = kind.removesuffix("*")
    if kind in ENUMS or kind in MESSAGES:
        field.type = kinds.TYPE_ENUM if kind in ENUMS else kinds.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    if len(words) == 4:
        choices = [one.name for one in message.oneof_decl]
        if words[3][1:] not in choices:
            choices.append(message.oneof_decl.add(name=words[3][1:]).name)
        field.oneof_index = choices.index(words[3][1:])
