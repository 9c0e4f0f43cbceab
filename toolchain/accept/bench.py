"""State that the checks of an acceptance share, and the type of a check."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.bundle.machine import Machine
from toolchain.recipe import Recipe
from toolchain.records.plan import PlanRecord
from toolchain.records.result import Result


class Skip(Exception):  # noqa: N818  # a check that is skipped is not an error
    """This machine cannot run the check, and need not."""


@dataclass
class Bench:
    """The machine, the recipe, the folder of the bundles, and the plans and results of the checks so far."""

    machine: Machine
    recipe: Recipe
    folder: Path
    results: list[Result] = field(default_factory=list)
    plans: dict[str, PlanRecord] = field(default_factory=dict)

    def bundle(self, name: str) -> Path:
        """Return a bundle that an earlier check has built.

        Raises:
            Skip: it was not built.
        """
        if name not in self.plans:
            raise Skip(f"{name} was not built")
        return self.folder / name


Check = Callable[[Bench], str]
"""Returns what it found in a few words, or raises; raises `Skip` where this machine cannot run it."""
