"""The acceptance check that writes the HTML page of the results."""

from toolchain.accept.bench import Bench, Check, Skip
from toolchain.base.files import write_text
from toolchain.report.html import html
from toolchain.report.inputs import Material

PAGE = "accept.html"


def show(bench: Bench) -> str:
    """Write the HTML page of the results so far, and return its file name.

    Raises:
        Skip: there are no results.
    """
    if not bench.results:
        raise Skip("there are no results to show")
    write_text(bench.folder / PAGE, html(Material(bench.results)))
    return PAGE


CHECKS: dict[str, Check] = {"HTML report": show}
