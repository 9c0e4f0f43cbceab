"""TensorRT 8.6: what the double has of later versions is taken away; tests/bindings/test_double.py holds the list."""

ABSENT = """
ActivationType.GELU_ERF ActivationType.GELU_TANH Builder.build_engine_with_config BuilderFlag.BF16
BuilderFlag.DISABLE_COMPILATION_CACHE BuilderFlag.DISTRIBUTIVE_INDEPENDENCE BuilderFlag.EDITABLE_TIMING_CACHE
BuilderFlag.ERROR_ON_TIMING_CACHE_MISS BuilderFlag.FP4 BuilderFlag.INT4 BuilderFlag.MONITOR_MEMORY
BuilderFlag.REFIT_IDENTICAL BuilderFlag.REFIT_INDIVIDUAL BuilderFlag.STRICT_NANS BuilderFlag.STRIP_PLAN
BuilderFlag.WEIGHTLESS BuilderFlag.WEIGHT_STREAMING DataType.BF16 DataType.E8M0 DataType.FP4 DataType.INT4
DataType.INT64 ErrorCode.REFIT_FAILED ErrorCode.UNSUPPORTED_NODE_ATTR ErrorCode.UNSUPPORTED_NODE_DATATYPE
ErrorCode.UNSUPPORTED_NODE_DYNAMIC ErrorCode.UNSUPPORTED_NODE_INPUT ErrorCode.UNSUPPORTED_NODE_SHAPE
HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY IBuilderConfig.l2_limit_for_tiling
IBuilderConfig.max_num_tactics IBuilderConfig.progress_monitor IBuilderConfig.runtime_platform
IBuilderConfig.tiling_optimization_level ICudaEngine.device_memory_size_v2
ICudaEngine.get_device_memory_size_for_profile_v2 ICudaEngine.get_engine_stat
ICudaEngine.streamable_weights_size IExecutionContext.set_device_memory IGpuAllocator.api_language
INetworkDefinition.add_plugin_v3 INetworkDefinition.flags INetworkDefinition.get_flag
INetworkDefinition.mark_unfused_tensors_as_debug_tensors IPluginCreator.api_language
IPluginRegistry.all_creators IPluginRegistry.all_creators_recursive IPluginRegistry.get_creator
LayerType.ATTENTION_INPUT LayerType.ATTENTION_OUTPUT LayerType.CUMULATIVE LayerType.DIST_COLLECTIVE
LayerType.DYNAMIC_QUANTIZE LayerType.KV_CACHE_UPDATE LayerType.MOE LayerType.PLUGIN_V3
LayerType.ROTARY_EMBEDDING LayerType.SQUEEZE LayerType.UNSQUEEZE MemoryPoolType.TACTIC_SHARED_MEMORY
NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS NetworkDefinitionCreationFlag.PREFER_JIT_PYTHON_PLUGINS
NetworkDefinitionCreationFlag.STRONGLY_TYPED OnnxParser.set_builder_config OnnxParser.supports_model_v2
OnnxParserFlag.ADJUST_FOR_DLA OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE
OnnxParserFlag.ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA OnnxParserFlag.REPORT_CAPABILITY_DLA
ParserError.local_function_stack ParserError.local_function_stack_size ParserError.node_name
ParserError.node_operator PluginFieldType.BF16 PluginFieldType.FP4 PluginFieldType.FP8 PluginFieldType.INT4
PluginFieldType.INT64 PreviewFeature.ALIASED_PLUGIN_IO_10_03 PreviewFeature.MULTIDEVICE_RUNTIME_10_16
PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10 UnaryOperation.ISNAN APILanguage EngineStat
ExecutionContextAllocationStrategy IPluginCreatorInterface IPluginCreatorV3One IPluginV2DynamicExt IPluginV3
IProgressMonitor IVersionedInterface RuntimePlatform TensorRTPhase TilingOptimizationLevel bfloat16 e8m0 fp4
int4 int64
"""


def take_away(module):
    """Delete each name from a module, from a class or its base, or from the members of an enumeration."""
    for name in ABSENT.split():
        owner, _, attribute = name.rpartition(".")
        if not owner:
            module.pop(attribute)
            continue
        for home in module[owner].__mro__:
            vars(home).get("__members__", {}).pop(attribute, None)
            if attribute in vars(home):
                delattr(home, attribute)
