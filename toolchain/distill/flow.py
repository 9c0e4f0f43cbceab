"""Runs a graph in PyTorch node by node, each node for many batches, so that weights may change between two nodes."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from toolchain.distill.torch_graph import TorchGraph, compute

if TYPE_CHECKING:
    import torch

    from toolchain.distill.loop import Inputs


class Flow:
    """A graph that has run up to one of its nodes, and the values of each batch that later nodes need.

    A weight is computed when a node reads it, so it may change until then. A value is dropped after the last node that
    reads it has run.
    """

    def __init__(self, made: TorchGraph, batches: "Sequence[Inputs]") -> None:
        self._made, self._todo = made, list(made.model.graph)[::-1]
        self._values = [{value: batch[str(value.name)] for value in made.model.graph.inputs} for batch in batches]
        self._readers = Counter(value for node in self._todo for value in node.inputs if value is not None)

    def advance(self, node: ir.Node) -> "list[torch.Tensor]":
        """Run every node before `node`, and return the first input of `node` for each batch.

        Raises:
            InputError: see `compute`.
        """
        while self._todo[-1] is not node:
            self._compute(self._todo.pop())
        value = node.inputs[0]
        assert value is not None
        return [values[value] for values in self._values]

    def _compute(self, node: ir.Node) -> None:
        import torch

        inputs = [value for value in node.inputs if value is not None]
        weights = {value: self._made.made[value]() for value in inputs if value in self._made.made}
        known = {**self._made.fixed, **{value: one.detach() for value, one in weights.items()}}
        for values in self._values if node.outputs[0] not in self._made.made else ():
            read = [
                None if value is None else known[value] if value in known else values[value] for value in node.inputs
            ]
            with torch.no_grad():
                values |= zip(node.outputs, compute(node, read), strict=False)
        self._readers.subtract(inputs)
        for value in inputs:
            if not self._readers[value]:
                for values in self._values:
                    values.pop(value, None)
