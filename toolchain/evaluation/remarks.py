"""Remarks on a result: what a reader should know before its figures."""

import math

from toolchain.evaluation.statistics import wilson_ci95
from toolchain.records.result import Result

# With fewer rows, hardly any model is better than the most frequent label beyond chance.
LEAST_ROWS = 32


def remarks(result: Result) -> list[str]:
    """Return sentences on FP8 on a CPU, rows that were cut or learnt from, useless models, and a cascade's rows."""
    found, rows = _of_cascade(result), result["n"]
    if result.get("precision") == "fp8" and result["device"] == "cpu" and not result.get("halves"):
        found.append("a CPU computes FP8 in float: these times say nothing about a GPU.")
    if learnt := result.get("learnt_rows"):
        found.append(
            f"the model learnt from {learnt:,} of these {rows:,} rows, in shrink or heal, so its figures are too good. "
            "Evaluate other rows."
        )
    if cut := result["tokens"].get("truncated_rows"):
        found.append(
            f"{cut:,} of {rows:,} rows are longer than --max-length {result.get('max_length')}, and the model does not "
            "see their ends."
        )
    frequent, answer = result.get("most_frequent"), "labels of a row" if "per_label" in result else "label"
    if (
        frequent
        and rows >= LEAST_ROWS
        and wilson_ci95(round(frequent["accuracy"] * rows), rows)[0] <= frequent["share"]
    ):
        found.append(
            f"{frequent['accuracy']:.1%} of {rows:,} rows are right, which is not clearly more than the "
            f"{frequent['share']:.1%} of always answering the most frequent {answer}. Look whether labels and "
            "columns are those of the model."
        )
    return found


# Standard errors by which the share that a cascade passes on may differ: by more in one run of 16,000, by chance.
DRIFT = 4.0


def _of_cascade(result: Result) -> list[str]:
    """Return sentences about rows unlike those that a cascade's threshold was chosen on, or the same as those."""
    found, rows, cascade = [], result["n"], result.get("cascade")
    if cascade is None:
        return []
    passed_on, expected, known = cascade["passed_on"], cascade["expected"], cascade["expected_n"]
    pooled = (passed_on * rows + expected * known) / (rows + known)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / known))
    if abs(passed_on - expected) > DRIFT * error:
        found.append(
            f"the first stage passes {passed_on:.0%} of {rows:,} rows on, and {expected:.0%} of those on which its "
            "threshold was chosen: these rows are others. Make the cascade again with rows like these."
        )
    if cascade["chosen_on"]:
        found.append(
            f"the cascade's threshold was chosen on {cascade['chosen_on']:,} of these {rows:,} rows, so its "
            "figures are too good. Evaluate other rows, or give others to choose on: toolchain cascade --calib-data."
        )
    return found
