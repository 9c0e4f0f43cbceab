"""The name of a folder that `ship` writes."""

import re
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
    user = OPTIONAL.get(name) or _user_of(name)
    if user:
        raise UsageError(
            f"--output {folder}: {user} imports a Python package of this name, and Python that is started beside the "
            f"folder would take the folder for it. Choose another name, such as -o {folder.with_name('repository')}."
        )


def _user_of(name: str) -> str | None:
    """Return an installed distribution that has a package `name` or may need the distribution `name`."""
    if owners := metadata.packages_distributions().get(name):
        return owners[0]
    for one in metadata.distributions():
        if _normal(name) in {_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in one.requires or ()}:
            return str(one.metadata["Name"])
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
