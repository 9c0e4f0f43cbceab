"""What the checks of an acceptance share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.bundle.engine_step import Machine
from toolchain.evaluation.results import Result
from toolchain.recipe import Recipe


class Skip(Exception):  # noqa: N818  # it is no error
    """This machine cannot have the check, and need not."""


@dataclass
class Bench:
    """What the checks share: the machine, the recipe, where bundles go, and what was found so far."""

    machine: Machine
    recipe: Recipe
    folder: Path
    results: list[Result] = field(default_factory=list)
    plans: dict[str, Any] = field(default_factory=dict)

    def bundle(self, name: str) -> Path:
        """Return a bundle that an earlier check has built.

        Raises:
            Skip: it has not been built.
        """
        if name not in self.plans:
            raise Skip(f"{name} was not built")
        return self.folder / name


Check = Callable[[Bench], str]
"""Returns what it found in a few words, or raises; `Skip` where this machine cannot have it."""
