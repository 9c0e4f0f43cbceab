"""`toolchain generate`: text from a causal language model, and its measurement."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.generate.settings import Settings
from toolchain.recipe import Recipe

if TYPE_CHECKING:
    from toolchain.checkpoint.model import Source
    from toolchain.records.generation import Generation

# The options of a recipe that hold here too.
SHARED = ("device", "text_column", "energy", "energy_window", "require_energy", "seed")
TRUST = ("allow_pickle", "trust_remote_code", "ignore_unused")

# Rows of a table that are read at once.
PART_ROWS = 4096


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint, the prompts, and the options."""
    parser.add_argument("model", metavar="MODEL", help="a causal language model: a checkpoint's folder or a hub id")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; may be given again")
    parser.add_argument(
        "--data", dest="table", metavar="FILE", help="table of prompts (tsv, csv, json, jsonl, parquet) instead"
    )
    add_options(parser, ("max_new_tokens", "cache", "batch_size", "rounds", "backend"), Settings)
    add_options(parser, (*SHARED, *TRUST))


def run(args: argparse.Namespace) -> None:
    """Generate, and print the texts and the measurement."""
    from toolchain.checkpoint.model import find_model
    from toolchain.cli.show.generation import generation

    settings = Settings(**given(args, Settings))
    recipe = Recipe.make({name: value for name, value in given(args).items() if name in (*SHARED, *TRUST)})
    prompts, place = _prompts(args.prompt, Path(args.table) if args.table else None, recipe.text_column)
    source = find_model(args.model, **{name: getattr(recipe, name) for name in TRUST})
    emit(args, _measured(source, prompts, place, settings, recipe), generation)


def _measured(source: "Source", prompts: list[str], place: str, settings: Settings, recipe: Recipe) -> "Generation":
    from toolchain.energy.calls import joules_per_call
    from toolchain.energy.components import lacking
    from toolchain.energy.protocol import Protocol
    from toolchain.generate.measure import run
    from toolchain.meters.energy import open_meter
    from toolchain.runtimes.device import choose_device
    from toolchain.runtimes.pytorch import has_gpu

    device = choose_device(recipe.device, cuda=has_gpu())
    if not recipe.wants_energy:
        return run(source, prompts, settings, device=device, place=place, log=log.info)
    with open_meter(device) as meter:
        if recipe.require_energy and (missing := lacking(device, meter)):
            raise MachineError(
                f"--require-energy: this machine cannot measure the energy ({missing[0]}: {missing[1]}). "
                "See what it can read: `toolchain doctor`."
            )
        protocol = Protocol(window_s=recipe.energy_window, seed=recipe.seed)
        energy = joules_per_call(meter, protocol, device=device)
        return run(source, prompts, settings, device=device, place=place, energy=energy, log=log.info)


def _prompts(given: list[str], table: Path | None, column: str | None) -> tuple[list[str], str]:
    """Return the prompts, and where they come from.

    Raises:
        UsageError: prompts are given twice, or a column without a table.
        InputError: the table does not exist or cannot be read.
    """
    from toolchain.data.rows import read_texts

    if table is None:
        if column:
            raise UsageError(f"--text-column {column}: there is no table. Give one with --data, or leave it out.")
        return given, "--prompt"
    if given:
        raise UsageError(f"--data {table}: --prompt is given too. Leave one of them out.")
    if not table.is_file():
        raise InputError(f"{table}: no such file. Give one file with prompts.")
    return [text for part in read_texts(table, [column or "text"], rows=PART_ROWS) for (text,) in part], str(table)
