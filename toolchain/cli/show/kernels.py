"""Show the kernels that TensorRT-RTX compiles a bundle to, with lower bounds of their time, on the terminal."""

import re
from dataclasses import dataclass

from rich.table import Table

from toolchain.base.amounts import counted, figure, megabytes
from toolchain.cli.show import folded, put, titled
from toolchain.records.kernels import BoundedKernel, CompiledGraph, ExplainedTarget

# Names of nodes that convert a tensor when a kernel reads it, and names of nodes that quantize what a kernel writes.
READS, WRITES = re.compile(r"\.(dequantize|to_fp16|to_fp32)$"), re.compile(r"^.*\.quantize$")

# The part of a node's name up to the number of its layer. Without it, distilbert.transformer.layer.3.ffn.lin1 is
# ffn.lin1.
LAYER = re.compile(r"^.*\.\d+\.")


def explained_target(record: ExplainedTarget) -> None:
    """Print the kernels of all graphs by part of the model and kind, then the kernels of each graph.

    The last line says what limits the speed of INT8.
    """
    table = titled(
        f"{record['target']}: {counted(record['batch'], 'row')} of {counted(record['length'], 'token')}, "
        f"{record['compiler']}\n"
        f"bounds from the data sheet of {record['gpu']}, not measurements",
        narrow=True,
    )
    for heading in ("part", "kind"):
        table.add_column(heading)
    for one in record["graphs"]:
        for heading in (one["precision"], "MB", "µs", "by"):
            table.add_column(heading, justify="left" if heading == "by" else "right")
    for part, kind in dict.fromkeys((each["part"], each["kind"]) for one in record["graphs"] for each in one["groups"]):
        cells = [_group(one, part, kind) for one in record["graphs"]]
        table.add_row(part, kind, *(cell for row in cells for cell in row))
    totals = [(str(len(one["kernels"])), megabytes(one["bytes"]), figure(one["us"]), "") for one in record["graphs"]]
    table.add_row("all", "", *(cell for row in totals for cell in row))
    put(table, *(_kernels(one) for one in record["graphs"]))
    for one in record["graphs"]:
        put(*(f"{one['precision']}: the engine differs from the graph: {line}" for line in folded(one["not_as_asked"])))
    put("MB: memory traffic; GOP: operations, 10^9; µs: the least time at the GPU's peak")
    put("by: what bounds the time, GEMMs (compute) or memory traffic (memory)", record["answer"])


def _group(compiled: CompiledGraph, part: str, kind: str) -> tuple[str, str, str, str]:
    found = next((one for one in compiled["groups"] if (one["part"], one["kind"]) == (part, kind)), None)
    if found is None:
        return ("", "", "", "")
    return str(found["kernels"]), megabytes(found["bytes"]), figure(found["us"]), found["bound"]


@dataclass
class _Alike:
    """The summed figures of kernels that have the same kind and datatypes, and compute the same nodes of each layer."""

    kernels: int = 0
    bytes: int = 0
    operations: int = 0
    us: float = 0.0
    bound: str = ""

    def add(self, kernel: BoundedKernel) -> None:
        """Add the figures of a kernel to the sums."""
        self.kernels += 1
        self.bytes += kernel["bytes"] or 0
        self.operations += kernel["operations"] or 0
        self.us += kernel["us"]
        self.bound = kernel["bound"]


def _kernels(compiled: CompiledGraph) -> Table:
    """Return a table of the kernels of a graph. Kernels that differ only in their layer share a row."""
    found: dict[tuple[str, str], _Alike] = {}
    for kernel in compiled["kernels"]:
        key = (f"{kernel['kind']} {_types(kernel)}", ", ".join(_modules(kernel["nodes"])))
        found.setdefault(key, _Alike()).add(kernel)
    table = titled(f"{compiled['artefact']} in {compiled['precision']}", narrow=True)
    for heading in ("", "MB", "GOP", "µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("by", no_wrap=True)
    table.add_column("kernel", max_width=22, overflow="fold")
    table.add_column("ONNX nodes", max_width=25, overflow="fold")
    for (kind, nodes), one in found.items():
        operations = f"{one.operations / 1e9:,.1f}" if one.operations else ""
        table.add_row(str(one.kernels), megabytes(one.bytes), operations, figure(one.us), one.bound, kind, nodes)
    return table


def _types(kernel: BoundedKernel) -> str:
    """Return the datatypes that a kernel reads and writes, without those of its small constants."""
    reads = dict.fromkeys(one["datatype"] for one in kernel["inputs"])
    writes = dict.fromkeys(one["datatype"] for one in kernel["outputs"])
    if kernel["precision"]:
        reads = {kernel["precision"]: None}
    return f"{'+'.join(reads)} -> {'+'.join(writes)}"


def _modules(nodes: list[str]) -> list[str]:
    """Return short names of the nodes that a kernel computes.

    A node has the name of its module within the layer, such as ffn.lin1. If no node has a module, the names are those
    that the exporter gave.
    """
    computed = [WRITES.sub("quantize.", name) for name in nodes if not READS.search(name)]
    modules = [LAYER.sub("", name).removesuffix(".") for name in computed if "." in name]
    return list(dict.fromkeys(modules or (re.sub(r"^node_|_\d+$", "", name) for name in computed)))
