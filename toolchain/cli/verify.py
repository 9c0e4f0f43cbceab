"""`toolchain verify`: check that batch, padding and order change no logits, and compare the logits with FP32."""

import argparse

from toolchain.cli.options import LOOK, add_options, add_source, choices
from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a bundle or an ONNX file, and the options that choose the graph or engine to verify."""
    add_source(parser, "BUNDLE|FILE")
    add_options(parser, (*LOOK, "precision", "attention", "compile", "cuda_graphs", "allow_pickle"))


def run(args: argparse.Namespace) -> None:
    """Run the checks and print every case, then raise an error if a case failed."""
    from toolchain.cli.show.verify import verified
    from toolchain.diagnose.probe import open_probe_graph
    from toolchain.diagnose.verify import judge, verify
    from toolchain.generate.opened import find_lm, open_file, open_lm, refuse_others

    values, place = choices(args)
    if language_model := find_lm(place, values):
        from toolchain.generate.invariance import verify as verify_lm

        refuse_others(values, {"file", "device", "backend", "trust"})
        bundle = open_lm(language_model, trust=values.get("trust"))
        cases = verify_lm(open_file(bundle, values.get("file"), device=values.get("device") or "auto"))
        emit(args, cases, verified)
        judge(cases)
        return
    found = verify(open_probe_graph(place, values))
    emit(args, found, verified)
    judge(found)
