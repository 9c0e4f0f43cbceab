"""`toolchain generate`: generate text with a causal language model, and measure it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.cli import served
from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.errors import InputError, UsageError
from toolchain.generate.settings import Settings
from toolchain.recipe import Recipe

if TYPE_CHECKING:
    from toolchain.generate.generator import Generator
    from toolchain.records.generation import Generation

# Options of a recipe that this command has too.
SHARED = ("device", "file", "text_column", "energy", "energy_window", "require_energy", "seed")
TRUST = ("trust", "allow_pickle", "trust_remote_code", "ignore_unused")

# Number of rows that are read from a table at a time.
PART_ROWS = 4096


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the checkpoint or bundle, the prompts, and the options."""
    text = (
        "a causal language model: a checkpoint's folder, a hub id, a bundle of --task lm, or the name of a served model"
    )
    parser.add_argument("model", nargs="?", metavar="MODEL|BUNDLE", help=text)
    parser.add_argument("-m", "--model", dest="named", metavar="MODEL", help="the same as MODEL")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; may be repeated")
    parser.add_argument(
        "--data",
        "--prompts",
        dest="table",
        metavar="FILE",
        help="table of prompts (tsv, csv, json, jsonl, parquet), instead of --prompt",
    )
    add_options(parser, ("max_new_tokens", "cache", "batch_size", "rounds", "backend"), Settings)
    served.arguments(parser)
    add_options(parser, (*SHARED, *TRUST))


def run(args: argparse.Namespace) -> None:
    """Generate, and print the texts and the measurement."""
    from toolchain.cli.show.generation import generation
    from toolchain.generate.opened import open_generator

    served.check(args)
    args.model = _model(args.model, args.named)
    settings = Settings(**given(args, Settings))
    recipe = Recipe.make({name: value for name, value in given(args).items() if name in (*SHARED, *TRUST)})
    prompts, place = _prompts(args.prompt, Path(args.table) if args.table else None, recipe.text_column)
    if settings.backend == "openai":
        served.run(args, prompts, place, recipe)
        return
    model = open_generator(args.model, recipe, backend=settings.backend, cache=settings.caches)
    emit(args, _measured(model, prompts, place, settings, recipe), generation)


def _measured(model: "Generator", prompts: list[str], place: str, settings: Settings, recipe: Recipe) -> "Generation":
    from toolchain.energy.calls import joules_per_call
    from toolchain.energy.components import lacking
    from toolchain.energy.evaluation import required
    from toolchain.energy.protocol import Protocol
    from toolchain.generate.measure import run
    from toolchain.meters.energy import open_meter

    if not recipe.wants_energy:
        return run(model, prompts, settings, place=place, log=log.info)
    with open_meter(model.device) as meter:
        if recipe.require_energy and (missing := lacking(model.device, meter)):
            raise required(*missing)
        protocol = Protocol(window_s=recipe.energy_window, seed=recipe.seed)
        energy = joules_per_call(meter, protocol, device=model.device)
        return run(model, prompts, settings, place=place, energy=energy, log=log.info)


def _model(*given: str | None) -> str:
    """Return the model that was given, either as an argument or with --model.

    Raises:
        UsageError: no model is given, or it is given both ways.
    """
    names = [name for name in given if name is not None]
    if len(names) != 1:
        raise UsageError(
            f"MODEL: {' and '.join(names) or 'none'} {'are' if names else 'is'} given. Give one, as MODEL or with -m."
        )
    return names[0]


def _prompts(given: list[str], table: Path | None, column: str | None) -> tuple[list[str], str]:
    """Return the prompts, and their source for messages: `--prompt`, or the path of the table.

    Raises:
        UsageError: there are both prompts and a table, or a column without a table.
        InputError: the table does not exist or cannot be read.
    """
    from toolchain.data.rows import read_texts

    if table is None:
        if column:
            raise UsageError(
                f"--text-column {column}: there is no table. Give one with --data, or leave this option out."
            )
        return given, "--prompt"
    if given:
        raise UsageError(f"--data {table}: --prompt is given too. Leave one of them out.")
    if not table.is_file():
        raise InputError(f"{table}: no such file. Give a table of prompts.")
    return [text for part in read_texts(table, [column or "text"], rows=PART_ROWS) for (text,) in part], str(table)
