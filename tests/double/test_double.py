"""The doubles of TensorRT and PyCUDA behave as the tests of the engine builder and the runtime need."""

import json

import pytest

from tests.double.here import IN_DOUBLE

pytest.importorskip("polygraphy")
pytestmark = pytest.mark.double
if IN_DOUBLE:
    import numpy as np
    import tensorrt as trt
    from onnx import helper
    from polygraphy.backend.trt import CreateConfig

    from tests.double.prelude import (
        BUILDER,
        LOG,
        WEIGHT,
        Calibrator,
        attention,
        by_onnxruntime,
        config_of,
        context_on,
        conv,
        engine_of,
        execute,
        model,
        network_of,
        plain,
        plan_of,
        quantized,
        rows,
    )

VERSIONS = ["10.16.1.11", "11.4.0.106"]


@pytest.mark.parametrize(
    "version", [pytest.param(version, marks=pytest.mark.double(version=version)) for version in VERSIONS]
)
def test_built_and_run_by_polygraphys_configuration(version):
    assert trt.__version__ == version
    proto, x = plain(), rows(3)
    plan = plan_of(proto, builder_optimization_level=2, memory_pool_limits={trt.MemoryPoolType.WORKSPACE: 1 << 20})
    engine = engine_of(plan)
    assert [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)] == ["x", "y"]
    assert engine.get_tensor_mode("x") == trt.TensorIOMode.INPUT
    assert trt.nptype(engine.get_tensor_dtype("y")) is np.float32
    assert tuple(engine.get_tensor_shape("x")) == (-1, 8)
    assert [tuple(s) for s in engine.get_tensor_profile_shape("x", 0)] == [(1, 8), (2, 8), (4, 8)]
    held = context_on()
    np.testing.assert_allclose(execute(engine, x), by_onnxruntime(proto, x), rtol=1e-6)
    assert ("execute", {"x": (3, 8)}) in trt.double_calls
    built = next(call[1] for call in trt.double_calls if call[0] == "build")
    assert built["level"] == 2
    assert built["pools"] == {"WORKSPACE": 1 << 20}
    assert "TF32" not in built["flags"]
    context = engine.create_execution_context()
    assert not context.set_input_shape("x", (5, 8))
    assert LOG.has("ERROR", "does not satisfy any optimization profiles")
    held.pop()


@pytest.mark.double(version="11.4.0.106")
def test_11_lacks_what_only_10_has():
    assert not hasattr(trt, "IInt8EntropyCalibrator2")
    assert "INT8" not in trt.BuilderFlag.__members__
    assert not hasattr(BUILDER, "platform_has_fast_int8")
    assert not hasattr(BUILDER.create_builder_config(), "int8_calibrator")
    assert int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    assert int(trt.BuilderFlag.VERSION_COMPATIBLE) == 12


def test_kernels_of_a_quantized_graph():
    context_on()
    engine = engine_of(plan_of(quantized()))
    inspector = engine.create_engine_inspector()
    assert "N/A due to dynamic shapes" in inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    context = engine.create_execution_context()
    context.set_input_shape("x", (2, 8))
    inspector.execution_context = context
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    assert told["Bindings"] == ["x", "y"]
    layers = {layer["Name"]: layer for layer in told["Layers"]}
    assert layers["product"]["TacticName"].startswith("sm75_xmma_gemm_i8i8")
    assert "Int8" in layers["product"]["Inputs"][0]["Format/Datatype"]
    assert layers["_gemm_mha_v2_myl0_0"]["Metadata"].count("ONNX Layer") == 5
    assert all("Int8" in port["Format/Datatype"] for port in layers["_gemm_mha_v2_myl0_0"]["Inputs"])
    assert any(layer["LayerType"] == "Reformat" for layer in told["Layers"])
    assert b"_gemm_mha_v2" not in plan_of(attention()), "TensorRT fuses no attention in FP32"


def test_calibrator_is_driven():
    held = context_on()
    first, second = rows(2), rows(2)
    calibrator = Calibrator([first, second])
    plan = plan_of(conv(), typed=False, int8=True, calibrator=calibrator)
    head, *lines = calibrator.written.decode().splitlines()
    assert head == "TRT-101601-EntropyCalibration2"
    scales = {line.rsplit(": ", 1)[0]: line.rsplit(": ", 1)[1] for line in lines}
    assert list(scales) == ["x", "u", "c", "y"]
    amax = np.frombuffer(bytes.fromhex(scales["x"]), ">f4")[0] * 127
    np.testing.assert_allclose(amax, max(abs(first).max(), abs(second).max()), rtol=1e-6)
    assert ("get_batch", 2) in trt.double_calls
    assert b"i8i8" in plan
    assert not LOG.has("WARNING", "Missing scale")

    again = Calibrator([rows(2)], cache=calibrator.written)
    plan_of(conv(), typed=False, int8=True, calibrator=again)
    assert len(again.batches) == 1
    assert again.written is None

    other = Calibrator([rows(2)], cache=b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    plan_of(conv(), typed=False, int8=True, calibrator=other)
    assert other.written is not None

    short = Calibrator([], cache=b"TRT-101601-EntropyCalibration2\nx: 3c010a14\n")
    assert b"i8i8" not in plan_of(conv(), typed=False, int8=True, calibrator=short)
    assert LOG.has("WARNING", "Missing scale and zero-point for tensor c,")

    broken = Calibrator([rows(2), rows(2)], fail=1)
    assert plan_of(conv(), typed=False, int8=True, calibrator=broken) is not None
    assert [call[1] for call in trt.double_calls if call[0] == "get_batch"][-1] == 1

    unfused = Calibrator([rows(2)])
    assert b"i8i8" not in plan_of(plain(), typed=False, int8=True, calibrator=unfused)
    held.pop()


def test_calibrator_without_its_base_is_refused():
    class Forgot(trt.IInt8EntropyCalibrator2):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match=r"__init__\(\) must be called"):
        Forgot()


@pytest.mark.parametrize(
    "versions",
    [
        "123456",
        pytest.param("123", marks=pytest.mark.double(fault="v2_plugins")),
        pytest.param("", marks=pytest.mark.double(fault="no_plugins")),
    ],
)
def test_the_registry_has_every_version(versions):
    find = trt.get_plugin_registry().get_creator
    assert find("CustomQKVToContextPluginDynamic", "2", "") is None
    trt.init_libnvinfer_plugins(LOG, "")
    found = [version for version in "123456" if find("CustomQKVToContextPluginDynamic", version, "")]
    assert "".join(found) == versions


def test_plugin_is_made_with_its_fields():
    trt.init_libnvinfer_plugins(LOG, "")
    creator = trt.get_plugin_registry().get_creator("CustomQKVToContextPluginDynamic", "5", "")
    fields = [
        trt.PluginField(name, np.array([1], np.int32), trt.PluginFieldType.INT32)
        for name in ("type_id", "hidden_size", "num_heads", "has_mask")
    ]
    made = creator.create_plugin("mha", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
    assert isinstance(made, trt.IPluginV3)
    assert creator.create_plugin("mha", trt.PluginFieldCollection(fields[1:]), trt.TensorRTPhase.BUILD) is None


def test_builder_refuses_what_tensorrt_refuses():
    network = network_of(plain())
    assert BUILDER.build_serialized_network(network, BUILDER.create_builder_config()) is None
    assert LOG.has("ERROR", "no optimization profile has been defined")
    assert plan_of(plain(), int8=True) is None
    assert LOG.has("ERROR", "strongly typed")
    assert plan_of(plain(), hardware_compatibility_level=trt.HardwareCompatibilityLevel.AMPERE_PLUS) is None


def test_timing_cache_is_saved():
    network = network_of(plain())
    config = config_of(network)
    BUILDER.build_serialized_network(network, config)
    saved = bytes(config.get_timing_cache().serialize())
    config = config_of(network)
    assert config.set_timing_cache(config.create_timing_cache(saved), ignore_mismatch=False)
    BUILDER.build_serialized_network(network, config)
    assert [call[1] for call in trt.double_calls if call[0] == "timing"] == ["miss", "hit"]
    assert not config.set_timing_cache(config.create_timing_cache(b"timing 10.0.0.1 7.5"), ignore_mismatch=False)


def test_plugin_nodes_are_computed():
    norm = helper.make_node(
        "CustomSkipLayerNormPluginDynamic",
        ["u", "u"],
        ["n"],
        domain="trt.plugins",
        name="norm",
        plugin_version="6",
        plugin_namespace="",
        type_id=0,
        ld=8,
        beta=np.zeros(8, np.float32).tolist(),
        gamma=np.ones(8, np.float32).tolist(),
    )
    up = helper.make_node("Unsqueeze", ["x", "axes"], ["u"], name="up")
    down = helper.make_node("Squeeze", ["n", "axes"], ["y"], name="down")
    proto = model([up, norm, down], {"axes": np.array([2, 3])})
    proto.opset_import.append(helper.make_opsetid("trt.plugins", 1))
    parser = trt.OnnxParser(BUILDER.create_network(0), LOG)
    assert not parser.parse(proto.SerializeToString())
    assert "Plugin not found" in parser.get_error(0).desc()
    trt.init_libnvinfer_plugins(LOG, "")
    context_on()
    x = rows(2)
    centred = x - x.mean(axis=1, keepdims=True)
    expected = centred / centred.std(axis=1, keepdims=True)
    np.testing.assert_allclose(execute(engine_of(plan_of(proto)), x), expected, rtol=1e-3)


def test_network_written_by_the_api():
    network = BUILDER.create_network(0)
    x = network.add_input("x", trt.float32, (2, 8, 1, 1))
    layer = network.add_convolution_nd(x, 8, (1, 1), trt.Weights(WEIGHT), trt.Weights(np.zeros(8, np.float32)))
    layer.name, layer.get_output(0).name = "conv", "y"
    network.mark_output(layer.get_output(0))
    assert [one.type for one in network] == [trt.LayerType.CONVOLUTION]
    context_on()
    first = rows(2)
    calibrator = Calibrator([first.reshape(2, 8, 1, 1)])
    config = CreateConfig(int8=True, calibrator=calibrator)(BUILDER, network)
    plan = BUILDER.build_serialized_network(network, config)
    assert calibrator.written.count(b": ") == 2
    assert b"i8i8" in bytes(plan)
    np.testing.assert_allclose(
        execute(engine_of(plan), first.reshape(2, 8, 1, 1), static=True)[:, :, 0, 0], first @ WEIGHT.T, rtol=1e-5
    )
