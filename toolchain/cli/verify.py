"""`toolchain verify`: batch, padding and order must change no logits; parity with FP32."""

import argparse

from toolchain.cli.options import LOOK, add_options, add_source, choices
from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add a bundle or an ONNX file, and what of it to verify."""
    add_source(parser, "BUNDLE|FILE")
    add_options(parser, (*LOOK, "precision", "attention", "compile", "cuda_graphs", "allow_pickle"))


def run(args: argparse.Namespace) -> None:
    """Verify, print every case, and refuse an artefact that fails one."""
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
