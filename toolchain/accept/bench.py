"""The state that the acceptance checks share, and the type of a check."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.bundle.machine import Machine
from toolchain.recipe import Recipe
from toolchain.records.plan import PlanRecord
from toolchain.records.result import Result


class Skip(Exception):  # noqa: N818  # a check that is skipped is not an error
    """Raised by a check that this machine cannot run and need not run. The check counts as skipped, not as failed."""


@dataclass
class Bench:
    """The input of a check: the machine, the recipe, the folder of the bundles, and earlier results and plans."""

    machine: Machine
    recipe: Recipe
    folder: Path
    results: list[Result] = field(default_factory=list)
    plans: dict[str, PlanRecord] = field(default_factory=dict)

    def bundle(self, name: str) -> Path:
        """Return the folder of a bundle that an earlier check has built.

        Raises:
            Skip: no check has built it.
        """
        if name not in self.plans:
            raise Skip(f"{name} was not built")
        return self.folder / name


Check = Callable[[Bench], str]
"""A check: returns a short text about what it found, or raises an error; `Skip` if this machine cannot run it."""
