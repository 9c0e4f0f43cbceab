"""`toolchain predict`: label texts from the command line, a file or standard input."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.base.amounts import counted
from toolchain.base.progress import bar
from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.errors import InputError, UsageError
from toolchain.recipe.groups import RUNTIME

if TYPE_CHECKING:
    from toolchain.data.rows import Text
    from toolchain.evaluation.target import Target
    from toolchain.records.prediction import PredictedFile, PredictedRow

# What messages name as the source of rows from standard input.
STREAM = "standard input"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a bundle, the texts, the file to write, and the options of a runtime."""
    add_source(parser, "BUNDLE")
    parser.add_argument(
        "texts",
        nargs="*",
        type=str,  # a text may be empty
        metavar="TEXT",
        help="texts, one for each row; two for each row if the model takes pairs",
    )
    parser.add_argument(
        "--data",
        dest="table",
        metavar="FILE",
        help="table of texts (tsv, csv, json, jsonl, parquet), instead of TEXT. Without either, standard input is "
        "read: one text per line, with a tab between the texts of a pair",
    )
    parser.add_argument(
        "-o", "--output", dest="to", metavar="FILE", help="file to write, .csv or .jsonl (default: print the rows)"
    )
    add_options(
        parser, ("text_column", "text_join", *RUNTIME, "threshold", "trust", "allow_pickle", "trust_remote_code")
    )
    # These options are now those of `estimate`. They are hidden here, and version 0.2 will remove them.
    for option, kind in (("--gpu", str), ("--idle-power", float)):
        parser.add_argument(option, type=kind, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Label the texts, and print the rows or write them to a file."""
    if args.gpu:
        _estimate(args)
        return
    from toolchain.evaluation.classifier import Classifier
    from toolchain.evaluation.predict import json_lines, plain_lines, predict, save
    from toolchain.evaluation.runtime_choice import find_to_run

    table, to = (Path(name) if name else None for name in (args.table, args.to))
    _check_places(args, table, to)
    values, place = choices(args)
    columns = values.pop("text_column", None)
    target = find_to_run(values, place)
    where = str(target.bundle.path if target.bundle else target.resolved.source.name)
    log.info("%s: %s %s on %s", where, target.backend, target.variant, target.device)
    parts, total = _parts(args.texts, table, columns, target)
    # Rows that are printed on a terminal show the progress themselves, and a bar would be drawn over them.
    quiet = to is None and sys.stdout.isatty()
    shown = contextlib.nullcontext(lambda rows: None) if quiet else bar(total, "predicting", unit="rows")
    with Classifier(target) as classifier, shown as advance:
        source = str(table) if table else "TEXT" if args.texts else STREAM
        predicted = predict(classifier, parts, source=source, advance=advance)
        if to:
            rows = save(predicted, to)
        else:
            _print(predicted, json_lines if args.json else plain_lines)
    if to:
        record: PredictedFile = {"bundle": where, "artefact": target.artefact["file"], "file": str(to), "rows": rows}
        emit(args, record, lambda record: print(f"{record['file']}: {record['rows']:,} rows"))


def _check_places(args: argparse.Namespace, table: Path | None, to: Path | None) -> None:
    """Check the paths on the command line before anything is loaded.

    Raises:
        UsageError: there are both texts and a table, the suffix of the output is unknown, or the output is the table.
        InputError: the bundle or the table does not exist.
    """
    from toolchain.evaluation.predict import format_of

    if args.source and not Path(args.source).exists():
        raise InputError(f"{args.source}: no such bundle. Give the bundle first: toolchain predict BUNDLE TEXT.")
    if table and args.texts:
        raise UsageError(f"--data {table}: texts are given as arguments too. Leave one of them out.")
    if table and not table.is_file():
        raise InputError(f"{table}: no such file. Give a table of texts.")
    if to:
        format_of(to)
        if table and to.exists() and to.samefile(table):
            raise UsageError(f"--output {to}: the texts are read from this file. Name another file.")


def _parts(
    texts: list[str], table: Path | None, columns: str | None, target: "Target"
) -> tuple[Iterable[list["Text"]], int | None]:
    """Return the rows to label, as an iterable of lists of rows, and the total number of rows.

    The number is None if it is not known before the rows are read.
    """
    from toolchain.data.rows import read_texts
    from toolchain.data.texts import count_lines, from_arguments, from_lines
    from toolchain.evaluation.predict import PART_ROWS

    head = target.resolved.head
    own = target.resolved.task.text_columns[: head.texts_per_row]
    named = tuple(columns.split(",")) if columns else own
    if len(named) != len(own):
        raise UsageError(
            f"--text-column {columns}: the model takes {counted(len(own), 'column')}, such as {','.join(own)}. "
            "Name that many."
        )
    if table:
        found = read_texts(table, named, rows=PART_ROWS, text_join=target.resolved.recipe.text_join or head.join)
        return found, count_lines(table) if table.suffix not in (".json", ".parquet") else None
    if texts:
        return [from_arguments(texts, parts=len(own))], len(texts) // len(own)
    if sys.stdin.isatty():
        pairs = ", with a tab between the texts of a pair" if len(own) > 1 else ""
        log.info("type one text per line%s; Ctrl-D ends the input", pairs)
    return from_lines(sys.stdin.fileno(), parts=len(own), source=STREAM), None


def _print(predicted: "Iterable[list[PredictedRow]]", form: "Callable[[list[PredictedRow]], bytes]") -> None:
    for rows in predicted:
        sys.stdout.buffer.write(form(rows))
        sys.stdout.buffer.flush()


def _estimate(args: argparse.Namespace) -> None:
    from toolchain.cli.estimate import run as estimate

    if args.texts or args.to:
        raise UsageError(
            "--gpu: this option cannot be used with texts or --output. For a lower bound of the time on a GPU, run: "
            "toolchain estimate BUNDLE --gpu NAME"
        )
    log.warning(
        "warning: `toolchain predict --gpu` is now `toolchain estimate --gpu`. Version 0.2 removes the old form."
    )
    args.data = args.table
    estimate(args)
