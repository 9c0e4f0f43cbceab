"""Checks of a Triton model repository that need no server.

A check is a function that takes one model and all models of the repository, and yields findings. To add a check, write
the function in a module of this package and add it to the CHECKS of that module.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Value of the older field `platform` -> name of the backend.
PLATFORMS = {"tensorrt_plan": "tensorrt", "onnxruntime_onnx": "onnxruntime"}


@dataclass(frozen=True)
class Finding:
    """One fault of a repository.

    `level`: with an error, a model does not load or gives wrong results; with a warning, it is served badly.
    `where`: the model, or a file of it.
    `what`: what is wrong.
    `do`: how to fix it.
    """

    level: Literal["error", "warning"]
    where: str
    what: str
    do: str


@dataclass(frozen=True)
class LoadedModel:
    """A model of a repository: its folder, and its configuration as a ModelConfig message."""

    folder: Path
    config: Any

    @property
    def name(self) -> str:
        """The name that Triton serves the model under: the name of its folder."""
        return self.folder.name

    @property
    def backend(self) -> str:
        """The backend, from the field `backend` or the older `platform`; `ensemble` for an ensemble."""
        return str(self.config.backend or PLATFORMS.get(self.config.platform, self.config.platform))

    @property
    def present(self) -> list[int]:
        """The versions that have a folder, in ascending order."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.is_dir() and path.name.isdecimal())

    @property
    def served(self) -> list[int]:
        """The versions that the version policy selects, in ascending order; some of them may lack a folder."""
        policy = self.config.version_policy
        if policy.WhichOneof("policy_choice") == "specific":
            return sorted(policy.specific.versions)
        if policy.WhichOneof("policy_choice") == "all":
            return self.present
        return self.present[-max(1, policy.latest.num_versions) :]

    def error(self, what: str, do: str) -> Finding:
        """Return a finding about this model with the level error."""
        return Finding("error", self.name, what, do)

    def warning(self, what: str, do: str) -> Finding:
        """Return a finding about this model with the level warning."""
        return Finding("warning", self.name, what, do)


# Name -> model, for all models of a repository.
Models = dict[str, LoadedModel]
Check = Callable[[LoadedModel, Models], Iterator[Finding]]
