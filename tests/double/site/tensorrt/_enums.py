"""The enumerations, with the integers of the chosen major version."""

from ._setup import MAJOR as _MAJOR

_TABLE = {
    "ActivationType": "RELU SIGMOID TANH LEAKY_RELU ELU SELU SOFTSIGN SOFTPLUS CLIP HARD_SIGMOID SCALED_TANH "
    "THRESHOLDED_RELU GELU_ERF GELU_TANH",
    "APILanguage": "CPP PYTHON",
    "DataType": "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4 FP4 E8M0",
    "DeviceType": "GPU DLA",
    "ElementWiseOperation": "SUM PROD MAX MIN SUB DIV POW FLOOR_DIV AND OR XOR EQUAL GREATER LESS",
    "EngineCapability": "STANDARD SAFETY DLA_STANDALONE",
    "EngineStat": "TOTAL_WEIGHTS_SIZE STRIPPED_WEIGHTS_SIZE",
    "ErrorCode": "SUCCESS INTERNAL_ERROR MEM_ALLOC_FAILED MODEL_DESERIALIZE_FAILED INVALID_VALUE INVALID_GRAPH "
    "INVALID_NODE UNSUPPORTED_GRAPH UNSUPPORTED_NODE UNSUPPORTED_NODE_ATTR UNSUPPORTED_NODE_INPUT "
    "UNSUPPORTED_NODE_DATATYPE UNSUPPORTED_NODE_DYNAMIC UNSUPPORTED_NODE_SHAPE REFIT_FAILED",
    "ExecutionContextAllocationStrategy": "STATIC ON_PROFILE_CHANGE USER_MANAGED",
    "GatherMode": "DEFAULT ELEMENT ND",
    "HardwareCompatibilityLevel": "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY",
    "LayerInformationFormat": "ONELINE JSON",
    "LayerType": "CONVOLUTION CAST ACTIVATION POOLING LRN SCALE SOFTMAX DECONVOLUTION CONCATENATION ELEMENTWISE "
    "PLUGIN UNARY PADDING SHUFFLE REDUCE TOPK GATHER MATRIX_MULTIPLY RAGGED_SOFTMAX CONSTANT IDENTITY PLUGIN_V2 "
    "SLICE SHAPE PARAMETRIC_RELU RESIZE TRIP_LIMIT RECURRENCE ITERATOR LOOP_OUTPUT SELECT FILL QUANTIZE DEQUANTIZE "
    "CONDITION CONDITIONAL_INPUT CONDITIONAL_OUTPUT SCATTER EINSUM ASSERTION ONE_HOT NON_ZERO GRID_SAMPLE NMS "
    "REVERSE_SEQUENCE NORMALIZATION PLUGIN_V3 SQUEEZE UNSQUEEZE CUMULATIVE DYNAMIC_QUANTIZE ATTENTION_INPUT "
    "ATTENTION_OUTPUT ROTARY_EMBEDDING KV_CACHE_UPDATE MOE DIST_COLLECTIVE",
    "MatrixOperation": "NONE TRANSPOSE VECTOR",
    "MemoryPoolType": "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM TACTIC_SHARED_MEMORY",
    "OnnxParserFlag": "NATIVE_INSTANCENORM ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA REPORT_CAPABILITY_DLA "
    "ENABLE_PLUGIN_OVERRIDE ADJUST_FOR_DLA",
    "PluginFieldType": "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 CHAR DIMS UNKNOWN BF16 INT64 FP8 INT4 FP4",
    "ProfilingVerbosity": "LAYER_NAMES_ONLY NONE DETAILED",
    "RuntimePlatform": "SAME_AS_BUILD WINDOWS_AMD64",
    "TensorFormat": "LINEAR CHW2 HWC8 CHW4 CHW16 CHW32 DHWC8 CDHW32 HWC DLA_LINEAR DLA_HWC4 HWC16 DHWC",
    "TensorIOMode": "NONE INPUT OUTPUT",
    "TensorLocation": "DEVICE HOST",
    "TensorRTPhase": "BUILD RUNTIME",
    "TilingOptimizationLevel": "NONE FAST MODERATE FULL",
    "UnaryOperation": "EXP LOG SQRT RECIP ABS NEG SIN COS TAN SINH COSH ASIN ACOS ATAN ASINH ACOSH ATANH CEIL FLOOR "
    "ERF NOT SIGN ROUND ISINF ISNAN",
}
_TABLE_10 = {
    "BuilderFlag": "FP16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE "
    "OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO REJECT_EMPTY_ALGORITHMS VERSION_COMPATIBLE "
    "EXCLUDE_LEAN_RUNTIME FP8 ERROR_ON_TIMING_CACHE_MISS BF16 DISABLE_COMPILATION_CACHE STRIP_PLAN=19 WEIGHTLESS=19 "
    "REFIT_IDENTICAL=20 WEIGHT_STREAMING INT4 REFIT_INDIVIDUAL STRICT_NANS MONITOR_MEMORY FP4 EDITABLE_TIMING_CACHE "
    "DISTRIBUTIVE_INDEPENDENCE",
    "CalibrationAlgoType": "LEGACY_CALIBRATION ENTROPY_CALIBRATION ENTROPY_CALIBRATION_2 MINMAX_CALIBRATION",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED PREFER_JIT_PYTHON_PLUGINS "
    "PREFER_AOT_PYTHON_PLUGINS",
    "PreviewFeature": "PROFILE_SHARING_0806 ALIASED_PLUGIN_IO_10_03 RUNTIME_ACTIVATION_RESIZE_10_10 "
    "MULTIDEVICE_RUNTIME_10_16",
    "QuantizationFlag": "CALIBRATE_BEFORE_FUSION",
    "TacticSource": "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
}
_TABLE_11 = {
    "BuilderFlag": "DEBUG=2 GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE DIRECT_IO=11 "
    "VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME ERROR_ON_TIMING_CACHE_MISS=15 DISABLE_COMPILATION_CACHE=17 STRIP_PLAN "
    "REFIT_IDENTICAL WEIGHT_STREAMING REFIT_INDIVIDUAL=22 STRICT_NANS MONITOR_MEMORY EDITABLE_TIMING_CACHE=26 "
    "DISTRIBUTIVE_INDEPENDENCE",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED PREFER_JIT_PYTHON_PLUGINS PREFER_AOT_PYTHON_PLUGINS",
    "PreviewFeature": "ALIASED_PLUGIN_IO_10_03 RUNTIME_ACTIVATION_RESIZE_10_10",
    "TacticSource": "EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
}


class _Member:
    """One member; as in the bindings it is no int, but int() and index take it."""

    def __init__(self, value):
        found = next((m for m in type(self).__members__.values() if m.value == int(value)), None)
        if found is None:
            raise ValueError(f"{value} is not a valid {type(self).__name__}")
        self.__dict__.update(vars(found))

    def __int__(self):
        return self.value

    __index__ = __int__

    def __eq__(self, other):
        return type(other) is type(self) and other.value == self.value

    def __hash__(self):
        return hash(self.value)

    def __str__(self):
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self):
        return f"<{self}: {self.value}>"

    def __reduce__(self):
        return type(self), (self.value,)


def _enumeration(name, words, module="tensorrt"):
    """Make one: every word is one more than the word before, or says its own number."""
    made = type(name, (_Member,), {"__module__": module, "__members__": {}})
    number = -1
    for word in words.split():
        label, _, said = word.partition("=")
        number = int(said) if said else number + 1
        member = made.__new__(made)
        member.__dict__.update(name=label, value=number)
        made.__members__[label] = member
        setattr(made, label, member)
    return made


double_enums = {
    name: _enumeration(name, words) for name, words in (_TABLE | (_TABLE_10 if _MAJOR < 11 else _TABLE_11)).items()
}
Severity = _enumeration("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
DataType = double_enums["DataType"]
BuilderFlag = double_enums["BuilderFlag"]


def _itemsize(trt_type):
    """Bytes of one number of a type; a fraction for the small ones."""
    sizes = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "UINT8": 1, "FP8": 1}
    return (sizes | {"INT4": 0.5, "FP4": 0.5}).get(trt_type.name)


DataType.itemsize = property(_itemsize)


def flag_set(flags, name):
    """Whether the flag is among the bits; False where this major version has none of that name."""
    member = BuilderFlag.__members__.get(name)
    return member is not None and bool(flags >> member.value & 1)
