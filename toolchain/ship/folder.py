"""The name of a folder that `ship` writes."""

import functools
import re
import sys
from importlib import metadata
from pathlib import Path

from toolchain.errors import UsageError

# Packages that torch imports where they are installed; a build of torch for CPUs does not name them.
OPTIONAL = {"triton": "torch"}


def check_folder(folder: Path) -> None:
    """Refuse a folder that has the name of a Python package.

    Python that is started beside the folder takes it for the package if that is not installed: `import triton` then
    succeeds with an empty package, and torch fails.

    Raises:
        UsageError: an installed distribution has a package of this name, or uses one.
    """
    name = folder.resolve().name
    user = OPTIONAL.get(name) or _users(tuple(sys.path)).get(_normal(name))
    if user:
        raise UsageError(
            f"--output {folder}: {user} imports a Python package of this name, and Python that is started beside the "
            f"folder would take the folder for it. Choose another name, such as -o {folder.with_name('repository')}."
        )


@functools.cache
def _users(path: tuple[str, ...]) -> dict[str, str]:
    """Return the name of a package -> an installed distribution that has it, or may need the distribution so called."""
    found: dict[str, str] = {}
    for one in metadata.distributions(path=list(path)):
        if needs := one.requires:
            user = str(one.metadata["Name"])  # parses the whole file each time
            found |= {_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]): user for text in needs}
    return found | {_normal(name): owners[0] for name, owners in metadata.packages_distributions().items()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
