"""Parses the log of TensorRT-RTX's builder to find the kernels that a graph was compiled into.

The engine inspector needs a GPU. Without one, the log is the only source: with detailed profiling verbosity, the
builder logs a message for each optimisation profile that begins with `Layers:` and has a line for each layer.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

from toolchain.errors import InputError
from toolchain.records.kernels import KernelKind, KernelList, KernelRecord, TensorRecord
from toolchain.records.plan import LayerCounts

# Version of layers.json.
SCHEMA = 1

# Beginning of the message in the builder's log that lists the layers.
HEADING = "Layers:"

# Name of a datatype in the compiler's log -> its name in records.
DATATYPES = {
    "Int4": "int4",
    "Int8": "int8",
    "FP8": "fp8",
    "Half": "fp16",
    "BFloat16": "bf16",
    "Float": "fp32",
    "Int32": "int32",
    "Int64": "int64",
    "Bool": "bool",
}
WIDTHS = {"int4": 0.5, "int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4, "int32": 4, "int64": 8, "bool": 1}

# A line of the message, which describes one layer. Names may contain brackets and commas, so the line is split only at
# the words between its fields.
LINE = re.compile(
    r"Name: (?P<name>.*), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: .*, StreamId: \d+(, EventId: \d+)?, Metadata: ?(?P<metadata>.*)"
)
TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<dimensions>[^\]]*)\], Strides: \[[^\]]*\], StrideOrder: \[[^\]]*\], "
    r"Datatype: (?P<datatype>\w+), Format: .*? ?\}(?=, \{ Name: |$)"
)

# Character between the entries in the metadata of a layer. An example of an entry: `[ONNX Layer:
# layer.0.attention.q_lin]`.
UNIT_SEPARATOR = "\x1f"
NODE = re.compile(r"\[ONNX Layer: (.*)\]")

# Types of layers that run no kernel: they order streams, or compute shapes on the host.
NO_KERNEL = {"signal", "wait", "shape_call"}

# A line for a layer that copies a dynamic size to the GPU. Its fields differ from those in LINE, and it is skipped.
SIZE_COPY = re.compile(r"Name: \[ShapeHostToDeviceCopy \d+\], LayerType: ShapeHostToDevice, .*")

# A fused kernel is named after its operations, each cut to four letters: __myl_MulAddReshTranReshMove_myl0_3.
OPERATIONS = re.compile(r"__myl_(?P<operations>\w+?)_myl\d+_\d+")
OPERATION = re.compile(r"[A-Z][a-z]*")

# Operations, cut to four letters, that move or convert numbers and compute nothing.
MOVES = {"Move", "Resh", "Tran", "Slic", "Conc", "Cast"}

# Kinds of kernels (Kernel.kind) that compute a GEMM.
MULTIPLYING = ("gemm", "attention", "convolution")


@dataclass(frozen=True)
class Tensor:
    """A tensor that a kernel reads or writes: its name, its dimensions (-1 if one varies), and its datatype."""

    name: str
    dimensions: tuple[int, ...]
    datatype: str

    @property
    def size(self) -> int | None:
        """The number of elements; None if a dimension varies."""
        return None if min(self.dimensions, default=1) < 0 else math.prod(self.dimensions)

    @property
    def bytes(self) -> int | None:
        """The number of bytes; None if a dimension varies, or the datatype is unknown."""
        width = WIDTHS.get(self.datatype)
        return None if self.size is None or width is None else math.ceil(self.size * width)

    def to_json(self) -> TensorRecord:
        """Return the tensor as an entry of layers.json."""
        return {"name": self.name, "dimensions": list(self.dimensions), "datatype": self.datatype}


@dataclass(frozen=True)
class Kernel:
    """A kernel as the compiler lists it. `nodes` are the ONNX nodes that it computes, entirely or in part.

    The nodes of an elementwise kernel include a GEMM if the kernel applies its bias or its scale.
    """

    name: str
    layer_type: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def kind(self) -> KernelKind:
        """The kind of the kernel, such as `gemm` or `attention`, from its layer type and its name."""
        done = self.fused_operations
        if "_gemm_mha" in self.name or self.is_one_query:
            return "attention"
        if self.layer_type == "correlation":
            return "convolution"
        if self.layer_type == "gemm" or "Fc" in done or "Gemm" in done:
            return "gemm"
        if self.layer_type not in ("kgen", "runtime_fusion"):
            return "other"
        return "copy" if done and set(done) <= MOVES else "elementwise"

    @property
    def is_one_query(self) -> bool:
        """Whether the kernel computes attention for one query per row. It then reads float16 and rounds to 8 bits."""
        return "_gemv_mha" in self.name

    @property
    def fused_operations(self) -> list[str]:
        """The operations in the name of a fused kernel, each cut to four letters; empty for other kernels."""
        found = OPERATIONS.fullmatch(self.name)
        return OPERATION.findall(found["operations"]) if found else []

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """The matrices that a GEMM or an attention multiplies; empty for other kernels.

        The second operand of a GEMM is its largest constant of at least two dimensions, or its second input if it has
        no such constant. The operands of attention are query, key and value: the inputs that have the rank and the
        first dimension of the output, which the mask lacks. The operands of attention for one query are the
        inputs in floating point, the largest first.
        """
        if self.kind not in MULTIPLYING or not self.outputs:
            return ()
        if self.is_one_query:
            floats = [one for one in self.inputs if one.datatype in ("fp16", "bf16", "fp32")]
            return tuple(sorted(floats, key=lambda one: -(one.size or 0)))
        if self.kind == "attention":
            output = self.outputs[0].dimensions
            return tuple(one for one in self.inputs if _leading(one.dimensions) == _leading(output))
        weights = [one for one in self.constants if len(one.dimensions) >= 2]
        if not weights:
            return self.inputs[:2]
        weight = max(weights, key=lambda one: one.size or 0)
        fitting = [one for one in self.inputs if one.dimensions and one.dimensions[-1] in weight.dimensions]
        return (*(fitting or self.inputs)[:1], weight)

    @property
    def precision(self) -> str | None:
        """The datatype in which the kernel multiplies: the widest datatype of its operands. None if it has no matrices.

        For example, a GEMM of an int8 input and a float16 weight is in float16: the input is converted first.
        """
        kinds = [one.datatype for one in self.operands]
        return max(kinds, key=lambda kind: WIDTHS.get(kind, 0)) if len(kinds) > 1 else None

    @property
    def bytes(self) -> int | None:
        """The bytes that the kernel reads and writes; None if a size varies.

        If the kernel reads only a slice of a tensor, the compiler lists the slice, so only the bytes of the slice
        count.
        """
        found = [self._bytes_of(one) for one in (*self.inputs, *self.constants, *self.outputs)]
        return None if None in found else sum(one or 0 for one in found)

    def _bytes_of(self, tensor: Tensor) -> int | None:
        """Return how many bytes of a tensor the kernel reads or writes; None if a size varies.

        The kernel reads at most one row of an embedding table for each row of the output.
        """
        if "Gath" not in self.fused_operations or tensor not in self.constants or len(tensor.dimensions) != 2:
            return tensor.bytes
        output = self.outputs[0]
        if tensor.bytes is None or output.size is None or output.dimensions[-1] != tensor.dimensions[-1]:
            return tensor.bytes
        return min(tensor.bytes, math.ceil(output.size * WIDTHS[tensor.datatype]))

    @property
    def operations(self) -> int | None:
        """The number of multiplications and additions of its GEMMs; 0 if it has none, None if a size varies."""
        if self.kind not in MULTIPLYING:
            return 0
        sizes = [one.size for one in (*self.operands[:2], *self.outputs[:1])]
        if len(sizes) < 3 or not all(sizes):
            return None
        first, second, output = (size or 0 for size in sizes)
        if self.kind == "attention":  # twice queries x keys x width: for the scores, and for the weighted values
            heads, width = math.prod(self.outputs[0].dimensions[:-2]), self.outputs[0].dimensions[-1]
            return 4 * output * (second // (heads * width))
        # For [n, a, k] x [n, k, b] = [n, a, b], the sizes satisfy first * second / output = n k^2, whichever operand
        # comes first.
        return 2 * output * math.isqrt(first * second // (output * math.prod(self.operands[1].dimensions[:-2])))

    def to_json(self) -> KernelRecord:
        """Return the kernel as an entry of layers.json."""
        return {
            "name": self.name,
            "kind": self.kind,
            "inputs": [one.to_json() for one in self.inputs],
            "constants": [one.to_json() for one in self.constants],
            "outputs": [one.to_json() for one in self.outputs],
            "precision": self.precision,
            "bytes": self.bytes,
            "operations": self.operations,
            "nodes": list(self.nodes),
        }


def parse_kernels(message: str) -> list[Kernel]:
    """Parse a message of the builder's log that begins with HEADING, and return the kernels that it lists, in order.

    Raises:
        InputError: a line does not have the form in which TensorRT-RTX 1.7 writes it.
    """
    heading, *lines = message.split("\n")  # not splitlines(), because a name may contain other line separators
    if heading.strip() != HEADING:
        raise InputError(
            f"the compiler's list of layers: it begins with {heading[:60]!r}. Report this bug with the output of -vv."
        )
    kernels = []
    for line in lines:
        if not line.strip():  # an empty line ends the layers; the bindings follow
            break
        if SIZE_COPY.fullmatch(line.strip()):
            continue
        found = LINE.fullmatch(line.strip())
        if found is None:
            raise InputError(
                f"the compiler's list of layers: {line[:60]!r} cannot be parsed. "
                "Report this bug with the output of -vv."
            )
        if found["type"] not in NO_KERNEL:
            inputs, constants, outputs = (_tensors(found[part]) for part in ("inputs", "constants", "outputs"))
            entries = map(NODE.fullmatch, found["metadata"].split(UNIT_SEPARATOR))
            nodes = tuple(entry[1] for entry in entries if entry)
            kernels.append(Kernel(found["name"], found["type"], inputs, constants, outputs, nodes))
    return kernels


def _tensors(text: str) -> tuple[Tensor, ...]:
    """Parse a list of tensors in a line of the compiler's list of layers.

    Raises:
        InputError: the list contains something that is not a tensor.
    """
    found = list(TENSOR.finditer(text))
    if "".join(one[0] for one in found) != text.replace("}, { Name: ", "}{ Name: ").strip():
        raise InputError(
            f"the compiler's list of layers: {text[:60]!r} cannot be parsed. Report this bug with the output of -vv."
        )
    return tuple(
        Tensor(one["name"], _dimensions(one["dimensions"]), DATATYPES.get(one["datatype"], one["datatype"]))
        for one in found
    )


def _dimensions(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of dimensions. A dimension that is not a number varies, and becomes -1."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(int(part) if part.isdecimal() else -1 for part in parts)


def _leading(dimensions: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(dimensions), dimensions[:1]


def kernel_list(messages: list[str], compiler: str) -> KernelList:
    """Return the content of layers.json. `messages` has the compiler's list of layers for each optimisation profile.

    Raises:
        InputError: a list cannot be parsed.
    """
    profiles = [[kernel.to_json() for kernel in parse_kernels(message)] for message in messages]
    return {"schema": SCHEMA, "compiler": compiler, "profiles": profiles}


def count_kernels(kernels: list[Kernel]) -> LayerCounts:
    """Return the counts of the kernels for plan.json, like those that engine/inspector.py makes on a GPU."""
    gemms = [kernel for kernel in kernels if kernel.kind in MULTIPLYING]
    integer = [kernel.name for kernel in gemms if kernel.precision == "int8"]
    fp8 = sum(kernel.precision == "fp8" for kernel in gemms)
    counts: LayerCounts = {
        "layers": len(kernels),
        "by_type": dict(Counter(kernel.layer_type for kernel in kernels).most_common()),
        "by_precision": dict(Counter(_written(kernel) for kernel in kernels).most_common()),
        "products": len(gemms),
        "int8_products": len(integer),
        "unknown_products": sum(kernel.precision is None for kernel in gemms),
        "fused_attention": sum(kernel.kind == "attention" for kernel in kernels),
        "reformats": sum(kernel.kind == "copy" for kernel in kernels),
        "int8_names": integer[:10],
    }
    return {**counts, "fp8_products": fp8} if fp8 else counts


def _written(kernel: Kernel) -> str:
    return kernel.outputs[0].datatype if kernel.outputs else "none"
