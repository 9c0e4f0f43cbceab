"""Show the results of `toolchain ship` and `toolchain push` on the terminal."""

from toolchain.cli.show import put
from toolchain.records.ship import LintRecord, PushRecord, ServiceRecord, TritonRecord


def shipped(done: TritonRecord) -> None:
    """Print the content of a model repository, and the command that starts a server."""
    start, kept = done["start"], done["kept_versions"]
    engines = ", ".join(one["from"] for one in done["files"].values())
    put(
        f"{done['repository']}: {done['model']} version {done['version']} runs {engines} with {done['backend']}"
        + (f"; kept: version {', '.join(map(str, kept))}" if kept else "")
    )
    put(f"  batches of up to {done['max_batch']} rows, padded to {', '.join(map(str, done['buckets']))} tokens")
    if start["tensorrt"]:
        put(
            f"  a plan runs only in the TensorRT version that built it: {start['image']} must contain "
            f"{start['tensorrt']}"
        )
    put(f"start: {start['line']}")
    put(f"next: toolchain ship triton --lint {done['repository']}")


def linted(found: LintRecord) -> None:
    """Print each finding in a line, then the totals."""
    for one in found["findings"]:
        put(f"{one['level']}: {one['where']}: {one['what']}. {one['do']}.")
    put(f"{found['repository']}: {found['models']} models, {found['errors']} errors, {found['warnings']} warnings")


def packed(done: ServiceRecord) -> None:
    """Print the folder or image of a service and the command that starts it."""
    put(f"{done.get('path') or done['image']}: {done['name']}, bundle {done['sha256'][:12]}")
    put(f"next: {done['next']}")


def pushed(done: PushRecord) -> None:
    """Print the files of a bundle for the hub, and where they were uploaded or written."""
    kind = "private" if done["private"] else "public"
    put(f"{done['repository']}, {kind}: {len(done['files'])} files, {done['bytes'] / 1e6:,.1f} MB")
    put(*(f"  {name}" for name in done["files"]))
    if done["left_out"]:
        put(f"left out, because they run on one GPU model only: {', '.join(done['left_out'])}")
    put("nothing was written or uploaded (--dry-run)" if done["where"] is None else f"done: {done['where']}")
