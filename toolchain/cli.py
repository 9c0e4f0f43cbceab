"""The command line: parse, call one function, print. Nothing is decided here."""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain import __version__
from toolchain.errors import MachineError, ToolchainError, UsageError
from toolchain.recipe import ENGINE, Recipe

log = logging.getLogger("toolchain")

MODEL = ("model", "task", "data", "text_column", "label_column", "max_length", "output", "seed",
         "allow_pickle", "trust_remote_code", "force", "dry_run", "atol")  # fmt: skip
CALIBRATION = ("calib_samples", "calib_method", "smooth", "calib_data", "calibration", "split")
LOOK = ("model", "data", "task", "text_column", "label_column", "backend", "device", "file", "trust", "seed",
        "max_length", "trust_remote_code")  # fmt: skip
GATE = ("max_drop", "confidence", "strict")
EVALUATION = ("model", "task", "data", "split", "text_column", "label_column", "max_length", "precision", "backend",
              "device", "file", "cuda_graphs", "limit", "trust", "seed", "allow_pickle",
              "trust_remote_code")  # fmt: skip

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (see errors.py)."""
    args = _parser().parse_args(argv)
    _set_up_logging(args.verbose - args.quiet)
    try:
        args.run(args)
    except ToolchainError as error:
        return _fail(error, error.exit_code, args.verbose)
    except KeyboardInterrupt:
        print("interrupted: what was there before is as it was.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        place = error.filename or "file system"
        return _fail(f"{place}: {error.strerror or error}. Mend that and try again.", 1, args.verbose)
    return 0


def _fail(error: object, code: int, verbose: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    if verbose:
        log.exception("where it came from")
    return code


def _set_up_logging(loudness: int) -> None:
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(loudness, -1), logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolchain",
        description="Take a Hugging Face encoder from checkpoint to a checked, measured, quantised engine.",
        epilog="First steps: toolchain demo. Then: toolchain build --precision int8; toolchain eval.",
    )
    parser.add_argument("--version", action="version", version=f"toolchain {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (run, text, options, positional) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        if positional:
            command.add_argument("source", nargs="?", metavar=positional, help="a recipe (*.toml) or a bundle's folder")
            command.add_argument("--config", metavar="FILE", help="a recipe; the same as RECIPE")
            command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of it")
        _add_options(command, options)
        command.add_argument("--json", action="store_true", help="print the result as one JSON object")
        command.add_argument("-v", "--verbose", action="count", default=0, help="show more, and tracebacks")
        command.add_argument("-q", "--quiet", action="count", default=0, help="show warnings and errors only")
    for name in ("demo", "report"):
        where = {"demo": "the bundle (default engines/build/demo-demo-int8)", "report": "the file (default stdout)"}
        commands.choices[name].add_argument("-o", "--output", metavar="PATH", help=where[name])
    report = commands.choices["report"]
    report.add_argument("results", nargs="+", metavar="RESULT", help="results, or folders of them")
    commands.choices["compare"].add_argument(
        "results", nargs="+", metavar="RESULT|BUNDLE", help="the baseline, then candidates; one alone: against its FP32"
    )
    report.add_argument("--format", choices=("md", "csv", "json"), default="md", help="what to write (default md)")
    return parser


def _add_options(command: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """Add options from the recipe's table; all default to None, which means: not given."""
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for name in names:
        field, meta = fields[name], fields[name].metadata
        flags = [*([meta["short"]] if meta["short"] else []), f"--{name.replace('_', '-')}"]
        shown = meta["help"]
        if field.default not in (None, False) and "default" not in shown:
            shown += f" (default {field.default})"
        if field.type is bool:
            command.add_argument(*flags, action="store_true", default=None, help=shown)
            continue
        kinds: dict[str, Callable[[str], Any]] = {"int": _whole, "float": float}
        kind = next((kinds[name] for name in kinds if name in str(field.type)), str)
        command.add_argument(
            *flags, default=None, help=shown, type=kind, metavar=meta["metavar"], choices=meta["choices"] or None
        )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the recipe options that stand on the command line."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    return {key: value for key, value in vars(args).items() if key in known and value is not None}


def _choices(args: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """Return recipe keys by precedence (flag, --set, file), and the bundle if the positional is one."""
    place = Path(args.source) if args.source else None
    bundle = place if place and place.suffix != ".toml" else None
    file = Path(args.config) if args.config else place if bundle is None else None
    if args.config and place and bundle is None:
        raise UsageError(f"{args.source}: a recipe twice. Give it once, or with --config.")
    return Recipe.values(_given(args), sets=args.set, file=file), bundle


def _emit(args: argparse.Namespace, value: Any, show: Callable[[Any], None]) -> None:
    if args.json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        show(value)


def _build(args: argparse.Namespace, goal: tuple[str, ...] = ()) -> None:
    """Build by precision or, for `export` and `calibrate`, the steps that are the goal."""
    from toolchain import show
    from toolchain.build import build, build_engine
    from toolchain.bundle import open_bundle
    from toolchain.gate import gate, judge
    from toolchain.subject import recorded

    values, place = _choices(args)
    steps: tuple[str, ...] | None = None
    if place:
        bundle = open_bundle(place, check_files=not values.get("force"))
        recipe = recorded(bundle, values)
        if "precision" not in values:
            steps = (*bundle.manifest["steps"], *goal)
    else:
        recipe = Recipe.make(values | ({"precision": "fp32"} if goal else {}))
        steps = goal or None
    if place and _only_engine(values):
        done = build_engine(bundle, recipe, log=log.info)
    else:
        done = build(recipe, steps=steps, engine=not goal, log=log.info)
    gated = recipe.max_drop is not None and not recipe.dry_run
    if gated:
        engines = [done["engine"]["file"]] if "engine" in done else []
        done["gate"] = gate(Path(done["bundle"]), recipe, engines=engines, tell=log.info)
    _emit(args, done, show.built)
    judge(done["gate"] if gated else [], strict=recipe.strict)
    if "lacks" in done:
        raise MachineError(done["lacks"])


def _only_engine(values: dict[str, Any]) -> bool:
    """Whether nothing is asked of a bundle but its engine: then its checkpoint need not be here."""
    cache = {"calibration"} if Recipe.make(values).gives_cache else set()  # a calibration.json changes the graph too
    return values.get("backend") == "trt" and values.keys() <= {"backend", "device", "force", *cache, *ENGINE}


def _export(args: argparse.Namespace) -> None:
    _build(args, ("export",))


def _calibrate(args: argparse.Namespace) -> None:
    _build(args, ("export", "calibrate"))


def _eval(args: argparse.Namespace) -> None:
    from toolchain import show
    from toolchain.pipeline import evaluate

    values, bundle = _choices(args)
    _emit(args, evaluate(values, bundle=bundle, tell=log.info), show.result)


def _demo(args: argparse.Namespace) -> None:
    from toolchain import show
    from toolchain.pipeline import demo

    _emit(args, demo(output=Path(args.output) if args.output else None, tell=log.info), show.demo)


def _compare(args: argparse.Namespace) -> None:
    from toolchain import show
    from toolchain.gate import contest, judge

    recipe = Recipe.make(_given(args))
    records = contest([Path(place) for place in args.results], recipe, tell=log.info)
    _emit(args, {"comparisons": records}, show.compared)
    judge(records, strict=recipe.strict)


def _verify(args: argparse.Namespace) -> None:
    from toolchain import show, verify
    from toolchain.artefact import open_artefact

    values, place = _choices(args)
    found = verify.verify(open_artefact(place, values))
    _emit(args, found, show.verified)
    verify.judge(found)


def _explain(args: argparse.Namespace) -> None:
    from toolchain import show, show_engine
    from toolchain.artefact import open_artefact
    from toolchain.engine.plan import is_plan
    from toolchain.explain import explain, explain_plan

    values, place = _choices(args)
    if values.get("backend") == "trt" or is_plan(values.get("file", "")):
        _emit(args, explain_plan(place, values.get("file"), trust=values.get("trust")), show_engine.explained_plan)
        return
    _emit(args, explain(open_artefact(place, values)), show.explained)


def _tune(args: argparse.Namespace) -> None:
    from toolchain import show
    from toolchain.tune import tune

    values, place = _choices(args)
    _emit(args, tune(values, bundle=place, tell=log.info), show.tuned)


def _accept(args: argparse.Namespace) -> None:
    from toolchain import accept, show_engine

    values, place = _choices(args)
    if place:
        raise UsageError(f"{place}: accept builds its own bundles. Name a recipe (*.toml), or a model with -m.")
    recipe = Recipe.make(values)
    folder = Path(recipe.output) if recipe.output else accept.FOLDER
    found = accept.accept(recipe, folder=folder, tell=log.info)
    _emit(args, found, show_engine.accepted)
    accept.judge(found)


def _report(args: argparse.Namespace) -> None:
    from toolchain.files import write_text
    from toolchain.report import FORMATS
    from toolchain.results import find_results

    text = FORMATS["json" if args.json else args.format](find_results(map(Path, args.results)))
    if args.output:
        write_text(Path(args.output), text)
        log.info("%s", args.output)
    else:
        print(text, end="")


def _doctor(args: argparse.Namespace) -> None:
    from toolchain import show
    from toolchain.doctor import examine

    findings = [dataclasses.asdict(finding) for finding in examine()]
    _emit(args, {"findings": findings}, show.doctor)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str, tuple[str, ...], str | None]] = {
    "demo": (_demo, "the whole path on the built-in model and data, offline", (), None),
    "export": (_export, "checkpoint to ONNX, checked against PyTorch", MODEL, "RECIPE|BUNDLE"),
    "calibrate": (_calibrate, "ONNX and rows to ranges, and a TensorRT cache", MODEL + CALIBRATION, "RECIPE|BUNDLE"),
    "build": (_build, "all of that up to the graphs and engines of one precision",
              (*MODEL, *CALIBRATION, "keep", "precision", "backend", "device", *ENGINE, *GATE), "RECIPE|BUNDLE"),
    "eval": (_eval, "one backend on one task: accuracy, latency, throughput, memory", EVALUATION, "RECIPE|BUNDLE"),
    "compare": (_compare, "results row by row: the drop, how sure it is, a verdict", (*GATE, "seed"), None),
    "verify": (_verify, "batch, padding and order change nothing; parity with FP32", LOOK, "BUNDLE|FILE"),
    "explain": (_explain, "why this INT8 is not faster or not accurate", LOOK, "BUNDLE|FILE"),
    "tune": (_tune, "which products to keep out of INT8 to stay within a drop",
             ("data", "max_drop", "budget", "seed", "trust"), "RECIPE|BUNDLE"),
    "accept": (_accept, "with a GPU and TensorRT: every check there is, one report",
               (*MODEL, *CALIBRATION, "device", "batch_size", "seq_len", "buckets", "limit", *GATE), "RECIPE"),
    "report": (_report, "results as a table in Markdown, CSV or JSON", (), None),
    "doctor": (_doctor, "what this machine has and lacks, and how to get it", (), None),
}  # fmt: skip
