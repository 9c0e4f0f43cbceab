"""`toolchain explain`: explain why a graph or an engine is slower or less accurate than expected."""

import argparse

from toolchain.cli.options import LOOK, add_options, add_source, choices
from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a bundle or an ONNX file, and the options that choose the graph or engine to explain."""
    add_source(parser, "BUNDLE|FILE")
    add_options(parser, (*LOOK, "target", "batch_size", "seq_len"))


def run(args: argparse.Namespace) -> None:
    """Print the explanation of a graph, of an engine, or of the kernels for a GPU.

    A graph is run on the CPU, an engine is explained from its record, and with --target the graph is compiled for the
    GPU. A language model has explanations of its own.
    """
    from toolchain.cli.show.explain import explained, explained_plan
    from toolchain.diagnose.explain import explain, explain_plan
    from toolchain.diagnose.probe import open_probe_graph
    from toolchain.engine.plan import plan_backend
    from toolchain.engine.releases import RELEASES
    from toolchain.generate.opened import find_lm, open_lm, refuse_others

    values, place = choices(args)
    if found := find_lm(place, values):
        from toolchain.cli.show.perplexity import passes, weights
        from toolchain.diagnose.lm_kernels import explain_passes
        from toolchain.generate.explain import explain as explain_lm

        bundle = open_lm(found, trust=values.get("trust"))
        if values.get("target"):
            refuse_others(values, {"target", "batch_size", "seq_len", "trust"})
            emit(args, explain_passes(bundle, values), passes)
            return
        refuse_others(values, {"file", "device", "backend", "trust"})
        emit(args, explain_lm(bundle, values.get("file")), weights)
        return
    if values.get("target"):
        from toolchain.cli.show.kernels import explained_target
        from toolchain.diagnose.kernels import explain_target

        emit(args, explain_target(place, values), explained_target)
        return
    backend = values.get("backend") or plan_backend(values.get("file") or "")
    if backend in RELEASES:
        emit(args, explain_plan(place, values.get("file"), backend=backend, trust=values.get("trust")), explained_plan)
        return
    emit(args, explain(open_probe_graph(place, values, graphs_only=True)), explained)
