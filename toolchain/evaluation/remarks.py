"""Remarks on a result: what a reader should know before its figures."""

from toolchain.evaluation.statistics import wilson_ci95
from toolchain.records.result import Result

# With fewer rows, hardly any model is better than the most frequent label beyond chance.
LEAST_ROWS = 32


def remarks(result: Result) -> list[str]:
    """Return sentences about rows that were cut, and about a model that is no better than the most frequent label."""
    found, rows = [], result["n"]
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
