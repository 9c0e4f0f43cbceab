"""What was shipped, and what is wrong with a repository."""

from typing import Any

from toolchain.cli.show import put


def shipped(done: dict[str, Any]) -> None:
    """Print what was made and how to start it."""
    start, kept = done["start"], done["kept_versions"]
    engines = ", ".join(one["from"] for one in done["files"].values())
    put(
        f"{done['repository']}: {done['model']} version {done['version']} runs {engines} by {done['backend']}"
        + (f"; kept: version {', '.join(map(str, kept))}" if kept else "")
    )
    put(f"  batches of up to {done['max_batch']} rows, padded to {', '.join(map(str, done['buckets']))} tokens")
    if start["tensorrt"]:
        put(f"  a plan runs in its own TensorRT alone: {start['image']} must have {start['tensorrt']}")
    put(f"start: {start['line']}")
    put(f"next: toolchain ship triton --lint {done['repository']}")


def linted(found: dict[str, Any]) -> None:
    """Print one finding a line, and how many there are."""
    for one in found["findings"]:
        put(f"{one['level']}: {one['where']}: {one['what']}. {one['do']}.")
    put(f"{found['repository']}: {found['models']} models, {found['errors']} errors, {found['warnings']} warnings")


def packed(done: dict[str, Any]) -> None:
    """Print what became of a bundle as a service, and how to run it."""
    put(f"{done.get('path') or done['image']}: {done['name']}, bundle {done['sha256'][:12]}")
    put(f"next: {done['next']}")
