"""The kernels read from the builder's log are those that it lists, with the bytes and operations of their shapes.

tests/engine/kernels/ has lists of TensorRT-RTX 1.7.1.116 for a random DistilBERT of one layer: width 64, two heads of
32, feed-forward 128, two classes; compiled for compute capability 8.6 and 32 rows of 128 tokens. In faulty.txt, query,
key and value are one GEMM with a scale for each channel, and the attention probabilities are not quantized.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.kernels import Kernel, Tensor, count_kernels, kernel_list, parse_kernels
from toolchain.errors import InputError

LISTS = Path(__file__).parent / "kernels"
LAYER = "distilbert.transformer.layer.0"
TOKENS, WIDTH, INNER, HEADS = 32 * 128, 64, 128, 2


def read(name):
    return (LISTS / name).read_text(encoding="utf-8")


def holding(name, node, kind="gemm"):
    """Return the one kernel of a kind that holds an ONNX node."""
    (found,) = [one for one in parse_kernels(read(name)) if one.kind == kind and f"{LAYER}.{node}" in one.nodes]
    return found


@pytest.mark.parametrize("name", ["int8.txt", "int8-dynamic.txt", "fp16.txt", "faulty.txt"])
def test_every_layer_of_a_real_list_but_those_of_streams_is_a_kernel(name):
    kernels = parse_kernels(read(name))
    types = Counter(re.findall(r"LayerType: (\w+)", read(name)))
    skipped = sum(types.pop(one, 0) for one in ("signal", "wait", "shape_call"))
    assert Counter(kernel.layer_type for kernel in kernels) == types
    assert len(kernels) == len(re.findall(r"^Name: ", read(name), re.MULTILINE)) - skipped
    assert sum(len(kernel.nodes) for kernel in kernels) == read(name).count("[ONNX Layer: ")
    tensors = [one for kernel in kernels for one in (*kernel.inputs, *kernel.constants, *kernel.outputs)]
    assert len(tensors) == read(name).count("{ Name: ")


def test_a_size_that_is_copied_to_the_gpu_is_not_a_kernel():
    copied = (
        "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: "
        "(Unnamed Layer* 50) [Shuffle]_output, Location: Device, Dimensions: [1], Datatype: Int64, Format: Format not "
        "available due to dynamic shapes }], ParameterType: ShapeH2D, shapeValues0: [-10], "
        "TacticValue: 0x0000000000000000, StreamId: 0, Metadata: "
    )
    lines = read("int8.txt").split("\n")
    assert parse_kernels("\n".join([lines[0], copied, *lines[1:]])) == parse_kernels(read("int8.txt"))


def test_two_weights_of_four_bits_are_a_byte():
    assert Tensor("w", (3, 5), "int4").bytes == 8


def test_a_gemm_has_the_bytes_and_operations_of_its_shapes():
    one = holding("int8.txt", "attention.q_lin")
    assert {f"{LAYER}.attention.{name}_lin" for name in "qkv"} < set(one.nodes)
    alpha_and_beta = 2 * 4
    assert one.bytes == TOKENS * WIDTH + WIDTH * 3 * WIDTH + alpha_and_beta + 2 * TOKENS * 3 * WIDTH
    assert one.operations == 2 * TOKENS * WIDTH * 3 * WIDTH
    assert one.precision == "int8"


def test_fused_attention_multiplies_query_key_and_value_and_not_the_mask():
    one = holding("int8.txt", "attention.softmax", kind="attention")
    assert [operand.size for operand in one.operands] == [TOKENS * WIDTH] * 3
    assert one.operations == 2 * 2 * TOKENS * 128 * WIDTH
    assert one.bytes == 4 * TOKENS * WIDTH + 4 * TOKENS  # int8 in and out, and the mask in float32
    assert one.precision == "int8"
    assert holding("fp16.txt", "attention.softmax", kind="attention").precision == "fp16"


def test_an_int8_input_with_a_weight_in_float16_is_a_gemm_in_float16():
    (merged,) = [one for one in parse_kernels(read("faulty.txt")) if "layer.0.qkv" in one.nodes and one.operands]
    assert [operand.datatype for operand in merged.operands] == ["int8", "fp16"]
    assert merged.precision == "fp16"
    assert merged.operations == holding("int8.txt", "attention.q_lin").operations


def test_a_gemm_of_two_activations_counts_its_operations_whichever_comes_first():
    scores, values = (holding("faulty.txt", f"attention.{name}") for name in ("product", "product2"))
    assert scores.operations == values.operations == 2 * HEADS * 32 * 128 * 128 * 32
    assert (scores.precision, values.precision) == ("int8", "fp16")


def test_of_a_table_only_the_rows_that_are_looked_up_count():
    embedding = parse_kernels(read("int8.txt"))[0]
    tables = [one for one in embedding.constants if len(one.dimensions) == 2 and one.datatype == "fp16"]
    rest = sum(one.bytes for one in (*embedding.inputs, *embedding.constants, *embedding.outputs) if one not in tables)
    assert embedding.bytes == rest + sum(one.bytes for one in tables)  # tables smaller than 4096 rows: each row once
    many = Tensor("words", (30522, WIDTH), "fp16")
    ids, output = Tensor("ids", (2, 3), "int32"), Tensor("rows", (2, 3, WIDTH), "fp16")
    gathered = Kernel("__myl_GathAdd_myl0_0", "kgen", (ids,), (many,), (output,), ())
    assert gathered.bytes == 6 * 4 + 2 * 6 * WIDTH * 2


def test_a_slice_counts_by_its_own_size():
    line = next(one for one in read("int8.txt").split("\n") if f"[{TOKENS},{WIDTH}], Strides: [{3 * WIDTH},1]" in one)
    (query,) = parse_kernels(f"Layers:\n{line}\n")[0].inputs  # of the output of the merged GEMM
    assert query.bytes == 2 * TOKENS * WIDTH


def test_sizes_that_vary_are_unknown_and_types_are_not():
    kernels = parse_kernels(read("int8-dynamic.txt"))
    assert {one.bytes for one in kernels} == {None}
    assert {one.operations for one in kernels if one.operands} == {None}
    assert count_kernels(kernels)["int8_products"] == count_kernels(parse_kernels(read("int8.txt")))["int8_products"]


def test_counts_are_those_of_the_inspector():
    counts = count_kernels(parse_kernels(read("int8.txt")))
    # Query, key and value; attention; output; two of the feed-forward part. The head has two more.
    assert (counts["products"], counts["int8_products"], counts["unknown_products"]) == (7, 5, 0)
    assert (counts["fused_attention"], counts["reformats"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "layer_type", "kind"),
    [
        ("_gemm_mha_v2_myl0_3", "kgen", "attention"),
        ("__myl_CastMulFc_myl0_2", "runtime_fusion", "gemm"),
        ("layer.0.q_lin_myl0_1", "gemm", "gemm"),
        ("layer.0.conv_myl0_1", "correlation", "convolution"),
        ("__myl_ReshTranReshMove_myl12_3", "kgen", "copy"),
        ("__myl_MulAddReshTranMove_myl0_3", "kgen", "elementwise"),
        ("something_new", "kgen", "elementwise"),
        ("something_new", "something_new", "other"),
    ],
)
def test_the_kind_of_a_kernel(name, layer_type, kind):
    assert Kernel(name, layer_type, (), (), (), ()).kind == kind


def test_layers_json_has_a_list_for_each_profile():
    found = kernel_list([read("int8.txt"), read("int8-dynamic.txt")], "TensorRT-RTX 1.7.1.116")
    assert [len(kernels) for kernels in found["profiles"]] == [len(parse_kernels(read("int8.txt")))] * 2
    assert json.loads(json.dumps(found)) == found


# Names come from ONNX nodes, and may have anything but the words between the fields of a line.
NAMES = st.text(st.characters(blacklist_characters="\n\x1f", blacklist_categories=["Cs"]), min_size=1).map(
    lambda text: re.sub(r", (Dimensions|LayerType|Name)|\], |\}|\{", "", text).strip() or "x"
)
TYPES = {
    "Int4": "int4",
    "Int8": "int8",
    "Half": "fp16",
    "Float": "fp32",
    "Int64": "int64",
    "Bool": "bool",
    "FP8": "fp8",
    "FP4": "FP4",
}
DIMENSIONS = st.lists(st.integers(-1, 9), max_size=4).map(tuple)
TENSORS = st.lists(st.tuples(NAMES, DIMENSIONS, st.sampled_from(list(TYPES))), max_size=3)
LAYERS = st.tuples(NAMES, st.sampled_from(["kgen", "gemm", "signal"]), TENSORS, TENSORS, TENSORS, st.lists(NAMES))


def written(layer):
    """Return a layer as TensorRT-RTX writes it."""

    def listed(tensors):
        parts = (
            f"{{ Name: {name}, Dimensions: [{','.join(map(str, sizes))}], Strides: [1], StrideOrder: [1,0], "
            f"Datatype: {kind}, Format: (Arbitrary) Format with stride order = [1,2,0] }}"
            for name, sizes, kind in tensors
        )
        text = ", ".join(parts)
        return f"[ {text}]" if text else "[]"

    name, kind, inputs, constants, outputs, nodes = layer
    event = ", EventId: 3" if kind == "signal" else ""
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {listed(inputs)}, Constants: {listed(constants)}, "
        f"Outputs: {listed(outputs)}, TacticName: , StreamId: 0{event}, "
        f"Metadata: {chr(31).join(f'[ONNX Layer: {node}]' for node in nodes)}"
    )


@given(st.lists(LAYERS, max_size=4))
def test_what_is_written_is_read(layers):
    message = "\n".join(["Layers:", *map(written, layers), "", "I/O Tensors:", " Name: input_ids, IOMode: Input"])
    expected = [
        (name, kind, *([(t, d, TYPES[k]) for t, d, k in part] for part in (inputs, constants, outputs)), nodes)
        for name, kind, inputs, constants, outputs, nodes in layers
        if kind != "signal"
    ]
    found = [
        (
            one.name,
            one.layer_type,
            *([(t.name, t.dimensions, t.datatype) for t in part] for part in (one.inputs, one.constants, one.outputs)),
            list(one.nodes),
        )
        for one in parse_kernels(message)
    ]
    assert found == expected
    kernel_list([message], "any")  # no shape is an error


@pytest.mark.parametrize(
    "message",
    [
        "Layer(s):\n",
        "Layers:\nName: a, LayerType: kgen\n",
        "Layers:\nName: a, LayerType: kgen, Inputs: [ { Name: b, Datatype: Half }], Constants: [], Outputs: [], "
        "TacticName: , StreamId: 0, Metadata: \n",
    ],
)
def test_a_list_in_another_form_is_refused(message):
    with pytest.raises(InputError, match=r"list of layers: .*Report this bug"):
        parse_kernels(message)
