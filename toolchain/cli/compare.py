"""`toolchain compare`: compare results row by row, or, with --energy, bundles by their energy."""

import argparse
from pathlib import Path

from toolchain.cli.options import add_options, given, group
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import GATE


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: results or bundles, the accuracy gate, and the options of an energy comparison."""
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT|BUNDLE",
        help="the baseline, then candidates; a single result is compared with its FP32 reference; records of "
        "`generate --backend openai` can be compared too",
    )
    add_options(
        parser,
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
            "ignore_unused",
            "seed",
        ),
    )

    group(parser, "energy").add_argument(
        "--backend",
        dest="backends",
        default="ort",
        metavar="A[,B]",
        help="backends to compare, each with every bundle, such as torch,ort,trt (default ort)",
    )


def run(args: argparse.Namespace) -> None:
    """Compare the results and print the comparison, then raise an error if a candidate fails the gate."""
    from toolchain.cli.show.compare import compared
    from toolchain.cli.show.served import compared_served
    from toolchain.diagnose.gate import compare_results, judge
    from toolchain.generate.served.compare import compare_served, is_served
    from toolchain.records.comparison import ComparisonList
    from toolchain.records.served_generation import ServedComparisonList

    recipe = Recipe.make(given(args))
    if any(map(is_served, places := [Path(place) for place in args.results])):
        if recipe.max_drop is not None or recipe.wants_energy:
            raise UsageError(
                "--max-drop, --energy: these options do not apply to records of `generate --backend openai`. "
                "Leave them out."
            )
        emit(args, ServedComparisonList(comparisons=compare_served(places)), compared_served)
        return
    if recipe.wants_energy:
        _run_energy(args, recipe)
        return
    records = compare_results(places, recipe, tell=log.info)
    emit(args, ComparisonList(comparisons=records), compared)
    judge(records, strict=recipe.strict)


def _run_energy(args: argparse.Namespace, recipe: Recipe) -> None:
    from toolchain.cli.show.pairs import compared_energy
    from toolchain.energy.compare import compare_energy, judge
    from toolchain.energy.compare.contenders import parse_backends

    if recipe.max_drop is not None:
        raise UsageError(
            "--max-drop: this option limits the accuracy drop, but --energy compares energy only. "
            "Leave one of them out."
        )
    places = [Path(place) for place in args.results]
    record = compare_energy(places, parse_backends(args.backends), given(args), log=log.info)
    emit(args, record, compared_energy)
    if recipe.require_energy:
        judge(record)
