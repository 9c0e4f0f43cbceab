"""Checks the name of a folder that `ship` writes."""

import functools
import re
import sys
from importlib import metadata
from pathlib import Path

from toolchain.errors import UsageError

# Package -> the package that imports it if it is installed. The metadata of torch for CPUs does not name triton.
OPTIONAL = {"triton": "torch"}


def check_folder(folder: Path) -> None:
    """Refuse a folder that has the name of a Python package.

    If the package is not installed, Python that is started beside the folder imports the folder instead. For example,
    beside a folder `triton`, torch imports an empty package of this name and fails.

    Raises:
        UsageError: an installed distribution provides a package of this name, or may need one.
    """
    name = folder.resolve().name
    user = OPTIONAL.get(name) or _users(tuple(sys.path)).get(_normal(name))
    if user:
        raise UsageError(
            f"--output {folder}: {user} imports a Python package of this name, and Python that is started beside the "
            f"folder would import the folder instead. Choose another name, such as -o {folder.with_name('repository')}."
        )


@functools.cache
def _users(path: tuple[str, ...]) -> dict[str, str]:
    """Return the names of packages, each with an installed distribution that provides or may need the package."""
    found: dict[str, str] = {}
    for one in metadata.distributions(path=list(path)):
        if needs := one.requires:
            user = str(one.metadata["Name"])  # each access parses the whole metadata file
            found |= {_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]): user for text in needs}
    return found | {_normal(name): owners[0] for name, owners in metadata.packages_distributions().items()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
