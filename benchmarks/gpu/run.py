"""Compare every GPU runtime with transformers in float16: `python benchmarks/gpu/run.py -o FILE`.

The model is DistilBERT-base with random weights; the rows are as long as sst2's, and tokenised beforehand. The baseline
is transformers in float16 at batch 32 in file order; the other contenders sort the rows by length. The table has these
columns:

    rows/s, ratio    the median over rounds in random order, and its ratio to the baseline
    J/row, ratio     the energy of a row by NVML, measured in a window of its own, and its ratio to the baseline
    MFU              the operations/s without padding, as a fraction of the device's peak
    |d|              the largest absolute difference of a logit from float32's
    agree            the fraction of rows with the same label as in float32

A contender that cannot run on this machine is listed with its reason, and the others still run. To test the script
without a GPU, use `--device cpu --rows 64`.
"""

import argparse
import dataclasses
import fnmatch
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from gpu_contenders import BASELINE, CONTENDERS, REFERENCE, Contender, Place, make_place

from toolchain.base.files import write_json
from toolchain.base.tensors import Infer
from toolchain.energy.calls import joules_per_call
from toolchain.energy.load import Piece
from toolchain.energy.protocol import Protocol
from toolchain.meters.energy import open_meter
from toolchain.profile.roofline import assess
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.environment import describe, version_of

TARGETS = {"rows_per_s_ratio": 6.0, "energy_ratio": 0.5}
PARITY_ROWS = 872
LEAST_ROUNDS = 3

Record = dict[str, Any]


@dataclasses.dataclass
class Entry:
    """A contender that is open: its runtime, its fastest batches (`work`), and the seconds of each timed pass."""

    infer: Infer
    work: list[Piece]
    passes_s: list[float] = dataclasses.field(default_factory=list)

    def run(self) -> None:
        """Run all rows once."""
        for piece in self.work:
            self.infer(piece.batch)


def main(arguments: list[str] | None = None) -> Record:
    """Run all contenders, print the table, write the record if -o is given, and return it."""
    args = _parse(arguments)
    device = choose_device(args.device, cuda=_has_cuda())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = make_place(Path(folder), device, rows=args.rows, small=args.small)
        chosen = {name: one for name, one in CONTENDERS.items() if name == BASELINE or fnmatch.fnmatch(name, args.only)}
        entries, left_out = open_all(chosen, place, stack)
        if BASELINE not in entries:
            raise SystemExit(
                f"{BASELINE}: {left_out[BASELINE]}. This contender is the baseline, so the others cannot be compared."
            )
        rounds(entries, seconds=args.seconds)
        joules, energy = measure_energy(entries, place, seconds=args.energy_seconds)
        record = {
            "device": device,
            "rows": args.rows,
            "targets": TARGETS,
            "contenders": [describe_one(name, chosen[name], entries, joules, place) for name in entries],
            "left_out": left_out,
            "energy": energy,
            "environment": describe() | {name: version_of(name) for name in ("torchao", "onnxruntime-gpu")},
        }
    print(table(record))
    if args.output:
        write_json(args.output, record)
    return record


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument(
        "--rows",
        type=int,
        default=8720,
        help="rows in each pass (default 8720); the lengths of sst2's 872 rows are repeated",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help="time for the interleaved rounds in seconds (default 30); at least 3 rounds run",
    )
    parser.add_argument(
        "--energy-seconds",
        type=float,
        default=5.0,
        help="energy window of each contender in seconds (default 5); 0 measures no energy",
    )
    parser.add_argument(
        "--only",
        default="*",
        help="run the baseline and the contenders whose names match this pattern, such as 'torch*'",
    )
    parser.add_argument("-o", "--output", type=Path, help="write the record as JSON")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def open_all(chosen: dict[str, Contender], place: Place, stack: ExitStack) -> tuple[dict[str, Entry], dict[str, str]]:
    """Open the contenders that can run here, and find the fastest batches of each.

    Returns name -> open contender, and for all others name -> why it was left out. `stack` keeps the contenders open.
    """
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for name, contender in chosen.items():
        if contender.gpu_only and place.kind == "cpu":
            left_out[name] = "needs CUDA"
            continue
        with ExitStack() as own:
            try:
                entries[name] = _entry(own.enter_context(contender.open(place)), contender.work(place))
            except Exception as error:  # a library may raise anything, and the others must still run
                left_out[name] = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
                continue
            stack.push(own.pop_all())
    return entries, left_out


def _entry(infer: Infer, ways: list[list[Piece]]) -> Entry:
    """Return the runtime with the fastest of these ways to batch the rows.

    Each one is timed once, after two passes that let the runtime compile and capture CUDA graphs.
    """
    entries = [Entry(infer, work) for work in ways]
    seconds = []
    for entry in entries:
        entry.run()
        entry.run()
        start = time.perf_counter()
        entry.run()
        seconds.append(time.perf_counter() - start)
    return entries[int(np.argmin(seconds))]


def rounds(entries: dict[str, Entry], *, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
    """Time one pass of each contender per round, in random order, and add it to the entry's `passes_s`.

    Rounds are started until `seconds` are over, but at least LEAST_ROUNDS.
    """
    generator, begun_s, number = random.Random(0), clock(), 0
    while number < LEAST_ROUNDS or clock() - begun_s < seconds:
        for name in generator.sample(list(entries), len(entries)):
            start_s = clock()
            entries[name].run()
            entries[name].passes_s.append(clock() - start_s)
        number += 1


def measure_energy(
    entries: dict[str, Entry], place: Place, *, seconds: float
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measure the energy of each contender in a window of `seconds`.

    Returns name -> joules per pass (None if not measured), and the status of the measurement. If `seconds` is 0,
    nothing is measured.
    """
    if not seconds:
        return dict.fromkeys(entries), {"status": "unavailable", "reason": "not_requested"}
    joules: dict[str, float | None] = {}
    reasons: dict[str, str | None] = {}
    with open_meter(place.device) as meter:
        measure = joules_per_call(meter, Protocol(window_s=seconds), device=place.device)
        for name, entry in entries.items():
            joules[name], reasons[name] = measure(entry.run)
    measured = any(value is not None for value in joules.values())
    reason = next(filter(None, reasons.values()), None)
    return joules, {"status": "measured" if measured else "unavailable", "reason": reason, "window_s": seconds}


def describe_one(
    name: str, contender: Contender, entries: dict[str, Entry], joules: dict[str, float | None], place: Place
) -> Record:
    """Return the record of one contender.

    `rows_per_s_ratio` is the median over rounds of the contender's rows/s divided by the baseline's in that round.
    """
    entry, base, rows = entries[name], entries[BASELINE], len(place.tokens)
    seconds = statistics.median(entry.passes_s)
    own_j, base_j = joules[name], joules[BASELINE]
    faster = [other / own for other, own in zip(base.passes_s, entry.passes_s, strict=True)]
    return {
        "name": name,
        "precision": contender.precision_on(place),
        "batches": len(entry.work),
        "padding_efficiency": sum(piece.tokens for piece in entry.work) / sum(piece.slots for piece in entry.work),
        "rows_per_s": rows / seconds,
        "rounds": len(entry.passes_s),
        "rows_per_s_ratio": statistics.median(faster),
        "j_per_row": None if own_j is None else own_j / rows,
        "energy_ratio": own_j / base_j if own_j and base_j else None,
        "roofline": _utilisation(contender, entry, seconds, place),
        **_parity(entry.infer, place),
    }


def _utilisation(contender: Contender, entry: Entry, seconds: float, place: Place) -> Record:
    lengths = place.tokens.lengths
    shapes = [piece.batch["input_ids"].shape for piece in entry.work]
    tokens = {
        "real": int(lengths.sum()),
        "real_pairs": int((lengths**2).sum()),
        "batches": len(shapes),
        "slots": sum(rows * length for rows, length in shapes),
        "slot_pairs": sum(rows * length**2 for rows, length in shapes),
    }
    speed = {"tokens": tokens, "runtime_throughput_per_s": len(lengths) / seconds}
    at = {"backend": contender.backend, "device": place.device, "precision": contender.precision_on(place)}
    try:
        return assess(place.full_graph, speed, rows=len(lengths), **at)
    except Exception as error:  # such as for a GPU whose peak is unknown: the other figures are still valid
        return {"model_flop_utilisation": None, "reason": "not_counted", "detail": f"{type(error).__name__}: {error}"}


def _parity(infer: Infer, place: Place) -> Record:
    """Compare the logits of a runtime with float32's on at most PARITY_ROWS rows.

    Returns the largest absolute difference of a logit, float32's largest absolute logit, and the fraction of rows with
    the same label.
    """
    rows = np.arange(min(PARITY_ROWS, len(place.tokens)))
    batches = [place.tokens.batch(part) for part in np.array_split(rows, max(1, len(rows) // 64))]
    expected, found = _reference(place, batches), np.concatenate([infer(batch) for batch in batches])
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    return {
        "max_abs_logit_difference": float(np.abs(expected - found).max()),
        "largest_logit": float(np.abs(expected).max()),
        "label_agreement": float(same.mean()),
    }


_REFERENCES: dict[Path, Any] = {}


def _reference(place: Place, batches: list[Any]) -> Any:
    folder = place.source.folder
    if folder not in _REFERENCES:
        with REFERENCE.open(place) as infer:
            _REFERENCES[folder] = np.concatenate([infer(batch) for batch in batches])
    return _REFERENCES[folder]


def table(record: Record) -> str:
    """Return the table as text, fastest contender first, followed by the contenders that were left out and why."""
    lines = [f"{'':34}{'rows/s':>10}{'ratio':>7}{'J/row':>10}{'ratio':>7}{'MFU':>7}{'|d|':>9}{'agree':>7}"]
    for one in sorted(record["contenders"], key=lambda one: -one["rows_per_s"]):
        figures = (
            (one["rows_per_s"], "10,.0f"),
            (one["rows_per_s_ratio"], "7.2f"),
            (one["j_per_row"], "10.2g"),
            (one["energy_ratio"], "7.2f"),
            (one["roofline"]["model_flop_utilisation"], "7.3f"),
            (one["max_abs_logit_difference"], "9.1e"),
            (one["label_agreement"], "7.3f"),
        )
        lines.append(f"{one['name']:34}" + "".join(_cell(*figure) for figure in figures))
    lines += [f"left out: {name}: {why}" for name, why in record["left_out"].items()]
    why = f" ({reason})" if (reason := record["energy"]["reason"]) else ""
    lines.append(f"energy: {record['energy']['status']}{why}")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0].rstrip(","))
    return f"{'-':>{width}}" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
