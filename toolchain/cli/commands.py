"""The table of commands: to add one is an entry here, and the function that it runs."""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain.cli import profile, ship
from toolchain.cli.build import build, calibrate, export
from toolchain.cli.options import CALIBRATION, EVALUATION, GATE, LOOK, MODEL, choices, given
from toolchain.cli.output import emit, log
from toolchain.cli.power import power, power_arguments
from toolchain.cli.serve import serve, serve_arguments
from toolchain.errors import UsageError
from toolchain.recipe import ENGINE, Recipe


@dataclass(frozen=True)
class Command:
    """One command: what runs it, its line of help, and what it takes from the command line."""

    run: Callable[[argparse.Namespace], int | None]
    """May return an exit code that is not ours."""
    text: str
    options: tuple[str, ...] = ()
    """Keys of the recipe that are options of it."""
    positional: str | None = None
    """What it may be given first, a recipe or a bundle; without it, it takes no --config and no --set either."""
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds the arguments that are its alone."""


def _demo(args: argparse.Namespace) -> None:
    from toolchain.cli.show import results
    from toolchain.pipeline import demo

    emit(args, demo(output=Path(args.output) if args.output else None, tell=log.info), results.demo)


def _eval(args: argparse.Namespace) -> None:
    from toolchain.cli.show.results import result
    from toolchain.pipeline import evaluate

    values, bundle = choices(args)
    emit(args, evaluate(values, bundle=bundle, tell=log.info), result)


def _compare(args: argparse.Namespace) -> None:
    from toolchain.cli.show.compare import compared
    from toolchain.diagnose.gate import compare_results, judge

    recipe = Recipe.make(given(args))
    if recipe.wants_energy:
        _compare_energy(args, recipe)
        return
    records = compare_results([Path(place) for place in args.results], recipe, tell=log.info)
    emit(args, {"comparisons": records}, compared)
    judge(records, strict=recipe.strict)


def _compare_energy(args: argparse.Namespace, recipe: Recipe) -> None:
    from toolchain.cli.show.pairs import compared_energy
    from toolchain.energy.compare import compare_energy, judge
    from toolchain.energy.compare.contenders import parse_backends

    if recipe.max_drop is not None:
        raise UsageError("--max-drop: of accuracy, and --energy compares energy. Leave one of them out.")
    places = [Path(place) for place in args.results]
    record = compare_energy(places, parse_backends(args.backends), given(args), tell=log.info)
    emit(args, record, compared_energy)
    if recipe.require_energy:
        judge(record)


def _verify(args: argparse.Namespace) -> None:
    from toolchain.cli.show.verify import verified
    from toolchain.diagnose import verify
    from toolchain.diagnose.probe import open_probe_graph

    values, place = choices(args)
    found = verify.verify(open_probe_graph(place, values))
    emit(args, found, verified)
    verify.judge(found)


def _explain(args: argparse.Namespace) -> None:
    from toolchain.cli.show.explain import explained, explained_plan
    from toolchain.diagnose.explain import explain, explain_plan
    from toolchain.diagnose.probe import open_probe_graph
    from toolchain.engine.plan import is_plan

    values, place = choices(args)
    if values.get("backend") == "trt" or is_plan(values.get("file", "")):
        emit(args, explain_plan(place, values.get("file"), trust=values.get("trust")), explained_plan)
        return
    emit(args, explain(open_probe_graph(place, values, graphs_only=True)), explained)


def _predict(args: argparse.Namespace) -> None:
    from toolchain.cli.show.predict import predicted
    from toolchain.roofline.predict import predict

    values, place = choices(args)
    emit(args, predict(values, gpu=args.gpu, bundle=place, idle_w=args.idle_power), predicted)


def _tune(args: argparse.Namespace) -> None:
    from toolchain.cli.show.tune import tuned
    from toolchain.diagnose.tune import tune

    values, place = choices(args)
    emit(args, tune(values, bundle=place, tell=log.info), tuned)


def _accept(args: argparse.Namespace) -> None:
    from toolchain import accept
    from toolchain.cli.show.accept import accepted

    values, place = choices(args)
    if place:
        raise UsageError(f"{place}: accept builds its own bundles. Name a recipe (*.toml), or a model with -m.")
    recipe = Recipe.make(values)
    folder = Path(recipe.output) if recipe.output else accept.FOLDER
    found = accept.accept(recipe, folder=folder, tell=log.info)
    emit(args, found, accepted)
    accept.judge(found)


def _report(args: argparse.Namespace) -> None:
    from toolchain.files import write_text
    from toolchain.report.formats import format_for, render
    from toolchain.report.inputs import find_material

    output = Path(args.output) if args.output else None
    chosen = "json" if args.json else args.format or format_for(output)
    text = render(find_material(map(Path, args.results)), chosen)
    if output:
        write_text(output, text)
        log.info("%s", output)
    else:
        print(text, end="")


def _doctor(args: argparse.Namespace) -> None:
    from toolchain.cli.show.doctor import examined
    from toolchain.diagnose.doctor import examine

    findings = [dataclasses.asdict(finding) for finding in examine()]
    emit(args, {"findings": findings}, examined)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    _output(parser, "the bundle (default engines/build/demo-demo-int8)")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    shown = "the baseline, then candidates; one alone: against its FP32"
    parser.add_argument("results", nargs="+", metavar="RESULT|BUNDLE", help=shown)
    parser.add_argument(
        "--backend",
        dest="backends",
        default="ort",
        metavar="A[,B]",
        help="with --energy: where each bundle runs, such as torch,ort,trt (default ort)",
    )


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", metavar="NAME", required=True, help="whose data sheet: t4, l4, a100-80, h200, ...")
    shown = "what it draws at rest, if you know it: energy then has a floor"
    parser.add_argument("--idle-power", metavar="W", type=float, help=shown)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    _output(parser, "the file (default stdout)")
    shown = "results, bundles or folders of them; for html also records of tune and power"
    parser.add_argument("results", nargs="+", metavar="RESULT", help=shown)
    parser.add_argument(
        "--format",
        choices=("md", "html", "csv", "json", "optimum-benchmark"),
        help="what to write (default: by the suffix of -o, else md)",
    )


def _output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", metavar="PATH", help=what)


COMMANDS = {
    "demo": Command(_demo, "the whole path on the built-in model and data, offline", arguments=_demo_arguments),
    "export": Command(export, "checkpoint to ONNX, checked against PyTorch", MODEL, "RECIPE|BUNDLE"),
    "calibrate": Command(
        calibrate, "ONNX and rows to ranges, and a TensorRT cache", MODEL + CALIBRATION, "RECIPE|BUNDLE"
    ),
    "build": Command(
        build,
        "all of that up to the graphs and engines of one precision",
        (*MODEL, *CALIBRATION, "keep", "precision", "backend", "device", *ENGINE, *GATE),
        "RECIPE|BUNDLE",
    ),
    "eval": Command(
        _eval, "one backend on one task: accuracy, latency, throughput, memory, energy", EVALUATION, "RECIPE|BUNDLE"
    ),
    "compare": Command(
        _compare,
        "results row by row: the drop, how sure it is, a verdict; or bundles by energy",
        (
            *GATE,
            "energy",
            "energy_window",
            "energy_windows",
            "energy_warmup",
            "rate",
            "require_energy",
            "data",
            "split",
            "device",
            "cuda_graphs",
            "allow_pickle",
            "trust_remote_code",
            "seed",
        ),
        arguments=_compare_arguments,
    ),
    "verify": Command(
        _verify,
        "batch, padding and order change nothing; parity with FP32",
        (*LOOK, "precision", "attention", "compile", "cuda_graphs", "allow_pickle"),
        "BUNDLE|FILE",
    ),
    "explain": Command(_explain, "why this INT8 is not faster or not accurate", LOOK, "BUNDLE|FILE"),
    "tune": Command(
        _tune,
        "which products to keep out of INT8 to stay within a drop",
        ("data", "max_drop", "budget", "seed", "trust"),
        "RECIPE|BUNDLE",
    ),
    "profile": Command(
        profile.profile,
        "time and energy by part of the model: where a call goes",
        (*LOOK, "precision", "split", "allow_pickle", "energy", "energy_window"),
        "BUNDLE",
        arguments=profile.arguments,
    ),
    "predict": Command(
        _predict,
        "the least time on a GPU that one does not have: a bound, not a measurement",
        ("precision", "data", "split", "task", "text_column", "label_column", "trust", "seed"),
        "BUNDLE",
        arguments=_predict_arguments,
    ),
    "accept": Command(
        _accept,
        "with a GPU and TensorRT: every check there is, one report",
        (
            *MODEL,
            *CALIBRATION,
            "device",
            "batch_size",
            "seq_len",
            "buckets",
            "limit",
            *GATE,
            "energy_window",
            "energy_windows",
            "energy_warmup",
        ),
        "RECIPE",
    ),
    "report": Command(_report, "results side by side: HTML, Markdown, CSV or JSON", arguments=_report_arguments),
    "serve": Command(
        serve,
        "a bundle behind HTTP and gRPC, as Triton's clients speak, with a page to try it",
        ("backend", "device", "file", "cuda_graphs", "trust"),
        arguments=serve_arguments,
    ),
    "ship": Command(ship.ship, "what a server needs, from a bundle", arguments=ship.arguments),
    "power": Command(
        power,
        "energy of any command; without one, of this machine until Ctrl-C",
        ("device", "require_energy"),
        arguments=power_arguments,
    ),
    "doctor": Command(_doctor, "what this machine has and lacks, and how to get it"),
}
