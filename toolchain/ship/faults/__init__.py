"""Faults of a model repository that can be seen without starting a server.

A check is a function that is given one model of the repository, and all of them, and yields findings. To add one: a
function in a module here, and its name in the module's CHECKS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.ship.schema import message_class

PLATFORMS = {"tensorrt_plan": "tensorrt", "onnxruntime_onnx": "onnxruntime"}
"""Older names of backends."""


@dataclass(frozen=True)
class Finding:
    """One fault: an error is a model that does not load or answers wrongly, a warning one that serves badly."""

    level: str
    where: str
    what: str
    do: str


@dataclass(frozen=True)
class Loaded:
    """A model's folder and its configuration, read."""

    folder: Path
    config: Any

    @property
    def name(self) -> str:
        """The name that it is served by, which is its folder's."""
        return self.folder.name

    @property
    def backend(self) -> str:
        """The backend, by either of the two ways to name it; an ensemble's is `ensemble`."""
        return str(self.config.backend or PLATFORMS.get(self.config.platform, self.config.platform))

    @property
    def there(self) -> list[int]:
        """The versions that have a folder."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.is_dir() and path.name.isdecimal())

    @property
    def served(self) -> list[int]:
        """The versions that the policy asks for; not all of them need be there."""
        policy = self.config.version_policy
        if policy.WhichOneof("policy_choice") == "specific":
            return sorted(policy.specific.versions)
        if policy.WhichOneof("policy_choice") == "all":
            return self.there
        return self.there[-max(1, policy.latest.num_versions) :]

    def error(self, what: str, do: str) -> Finding:
        """Return an error of this model."""
        return Finding("error", self.name, what, do)

    def warning(self, what: str, do: str) -> Finding:
        """Return a warning about this model."""
        return Finding("warning", self.name, what, do)


Models = dict[str, Loaded]
Check = Callable[[Loaded, Models], Iterator[Finding]]


def type_name(value: int) -> str:
    """Return the name of a data type: TYPE_INT32."""
    field = message_class().DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    return str(field.enum_type.values_by_number[value].name)


def listed(dims: Any) -> str:
    """Return dimensions as they are written: [-1, 2]."""
    return str([int(size) for size in dims])
