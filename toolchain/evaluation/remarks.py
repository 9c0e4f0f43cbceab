"""Remarks on a result: reasons to doubt its figures, in sentences that are shown with them."""

import math

from toolchain.evaluation.statistics import wilson_ci95
from toolchain.records.result import Result

# Least number of rows for a remark about the most frequent label. With fewer, hardly any model is better than it by
# more than chance.
LEAST_ROWS = 32


def remarks(result: Result) -> list[str]:
    """Return a sentence for each reason to doubt the figures of a result.

    The reasons are FP8 times from a CPU, rows used to train the model, truncated rows, an accuracy that is not clearly
    above that of the most frequent label, and a cascade whose threshold does not fit the rows.
    """
    found, rows = _of_cascade(result), result["n"]
    if result.get("precision") == "fp8" and result["device"] == "cpu" and not result.get("halves"):
        found.append("a CPU computes FP8 in a wider float type, so these times say nothing about a GPU.")
    if learnt := result.get("learnt_rows"):
        found.append(
            f"`toolchain shrink` or `toolchain heal` used {learnt:,} of these {rows:,} rows to train or tune the "
            "model, so its metrics are too good. Evaluate it on other rows."
        )
    if cut := result["tokens"].get("truncated_rows"):
        found.append(
            f"{cut:,} of {rows:,} rows are longer than --max-length {result.get('max_length')}, and the model does not "
            "see their ends."
        )
    frequent, answer = result.get("most_frequent"), "set of labels" if "per_label" in result else "label"
    if (
        frequent
        and rows >= LEAST_ROWS
        and wilson_ci95(round(frequent["accuracy"] * rows), rows)[0] <= frequent["share"]
    ):
        found.append(
            f"{frequent['accuracy']:.1%} of {rows:,} rows are right, which is not clearly more than the "
            f"{frequent['share']:.1%} that always predicting the most frequent {answer} would get. Check that the "
            "label column and the text columns of the data are the ones that the model was trained on."
        )
    return found


# Number of standard errors by which the fraction of rows that a cascade passes on may differ without a warning. By
# chance alone, it differs by more in one run of 16,000.
DRIFT = 4.0


def _of_cascade(result: Result) -> list[str]:
    """Return warnings if a cascade's threshold was chosen on some of the evaluated rows, or on very different rows.

    Rows are very different if the fractions that the first stage passes on differ by more than chance.
    """
    found, rows, cascade = [], result["n"], result.get("cascade")
    if cascade is None:
        return []
    passed_on, expected, known = cascade["passed_on"], cascade["expected"], cascade["expected_n"]
    pooled = (passed_on * rows + expected * known) / (rows + known)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / known))
    if abs(passed_on - expected) > DRIFT * error:
        found.append(
            f"the first stage passes {passed_on:.0%} of these {rows:,} rows on to the second, but it passed on "
            f"{expected:.0%} of the rows that its threshold was chosen on: these rows are different. Run `toolchain "
            "cascade` again, with rows like these as --calib-data."
        )
    if cascade["chosen_on"]:
        found.append(
            f"the cascade's threshold was chosen on {cascade['chosen_on']:,} of these {rows:,} rows, so its metrics "
            "are too good. Evaluate it on other rows, or run `toolchain cascade` again with other rows as --calib-data."
        )
    return found
