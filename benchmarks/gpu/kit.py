"""The code that every stage of the kit uses on the GPU machine: it unpacks the parts, and runs steps with time limits.

    python3 .gpu/NAME-01/kit.py take                  copy the parts beside this file to /tmp/kit, where they stay
    python3 .gpu/NAME-02/kit.py run NAME [options]    the same, then check, join and unpack them and run stage_NAME.py
    python3 /tmp/kit/kit.py run NAME [options]        run the stage again with the parts that are in /tmp/kit

A stage is a list of checks, which are called steps. A part is a folder .gpu/NAME-NN that `pack.py` wrote. A file that
does not fit into one part is cut into pieces. The script needs Python 3.11 or newer and no packages. The variable
KIT_HOME replaces /tmp/kit, and OUT replaces the folder for results, /tmp/kit/out.
"""

import concurrent.futures
import hashlib
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("KIT_HOME", "/tmp/kit"))
OUT = Path(os.environ.get("OUT", HOME / "out"))
REPO = Path.cwd()


def take() -> None:
    """Copy this part and all parts in the same folder to HOME. Do nothing if this file is already there."""
    own = Path(__file__).resolve().parent.parent
    if own == HOME.parent:
        return
    start, size = time.monotonic(), 0
    for part in sorted(own.glob("*-[0-9][0-9]")):
        for file in part.iterdir():
            place = HOME / ("pieces" if ".piece" in file.name else "") / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            size += shutil.copyfile(file, place).stat().st_size
    pieces = len(list((HOME / "pieces").glob("*")))
    seconds = time.monotonic() - start
    print(f"copied {size / 2**20:.1f} MiB in {seconds:.1f} s; {HOME} has {pieces} pieces now", flush=True)


def unpack(name: str) -> Path:
    """Join the pieces of each file that NAME.json lists, unpack the file, and return the folder of the files.

    Files that an earlier call unpacked are not unpacked again.

    Raises:
        SystemExit: a piece is missing or damaged.
    """
    folder, listed = HOME / name, json.loads((HOME / f"{name}.json").read_text())
    missing = [piece for one in listed for piece in one["pieces"] if not (HOME / "pieces" / piece).exists()]
    if missing:
        raise SystemExit(
            f"{name}: these pieces are missing: {', '.join(missing)}. Carry their part first (kit.py take)."
        )
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # lzma releases the interpreter's lock
        list(pool.map(lambda one: _unpack_one(folder, one), listed))
    print(f"unpacked {name} in {time.monotonic() - start:.1f} s", flush=True)
    return folder


def _unpack_one(folder: Path, one: dict[str, Any]) -> None:
    done = folder / ".done" / one["name"].replace("/", "_")
    if done.exists() and done.read_text() == one["sha256"]:
        return
    joined = b"".join((HOME / "pieces" / piece).read_bytes() for piece in one["pieces"])
    if hashlib.sha256(joined).hexdigest() != one["sha256"]:
        raise SystemExit(f"{one['name']}: its SHA-256 differs from the one in the list. Carry its parts again.")
    target = folder / one["name"].removesuffix(".xz")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.decompress(joined) if one["name"].endswith(".xz") else joined)
    if target.suffix == ".tar":
        with tarfile.open(target) as archive:
            archive.extractall(folder, filter="data")
        target.unlink()
    done.parent.mkdir(exist_ok=True)
    done.write_text(one["sha256"])


def install(wheels: Path, site: Path) -> str | None:
    """Install the wheels in the folder `wheels` into `site`, without dependencies and without a network.

    Returns the last line of pip's error, or None if pip succeeded.
    """
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-cache-dir", "--upgrade"]
    command += ["--target", str(site), *map(str, sorted(wheels.glob("*.whl")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


class Stage:
    """A run of one stage: its steps run one after another, and a step that fails does not stop the others.

    The results are written to OUT/NAME.json after every step, so that they survive if the command is killed.
    """

    def __init__(self, name: str, seconds: float, only: Sequence[str] = ()) -> None:
        """Start the clock. The stage runs for at most `seconds`.

        If `only` is not empty, only steps run whose names begin with one of its entries.
        """
        self.name, self.only = name, list(only)
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.begun = time.monotonic()
        self.deadline = self.begun + seconds
        self.logs = OUT / f"{name}-logs"
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)

    @property
    def left(self) -> float:
        """Seconds until the deadline of the stage."""
        return self.deadline - time.monotonic()

    def wanted(self, label: str, least: float) -> bool:
        """Return whether to run the step `label`: `only` allows it, and at least `least` seconds are left.

        If too little time is left, the table gets a line that says so.
        """
        if self.only and not any(label.startswith(one) for one in self.only):
            return False
        if self.left < least:
            self.row(label, "no time", f"needs {least:.0f} s, but only {self.left:.0f} s are left", 0.0)
            return False
        return True

    def row(self, label: str, outcome: str, detail: str, seconds: float) -> None:
        """Add a line to the table of results, print it, and save the table."""
        self.rows.append({"step": label, "outcome": outcome, "detail": detail, "seconds": round(seconds, 1)})
        print(f"[{time.monotonic() - self.begun:5.0f} s] {label}: {outcome} {detail}", flush=True)
        self.save()

    def run(
        self,
        label: str,
        command: Sequence[object],
        *,
        least: float,
        most: float,
        summary: Callable[[str], str] | None = None,
        env: dict[str, str] | None = None,
    ) -> str | None:
        """Run a command as a step, for at most `most` seconds; return its stdout, or None if it failed or did not run.

        It does not run if fewer than `least` seconds are left, or if `only` excludes it. `summary(stdout)` returns the
        text for its line in the table. `env` has additional environment variables.
        """
        if not self.wanted(label, least):
            return None
        log, start = self._log(label), time.monotonic()
        try:
            code, stdout = self._execute(command, log, seconds=min(most, max(5.0, self.left)), env=env)
        except OSError as error:
            self.row(label, "FAIL", str(error), time.monotonic() - start)
            return None
        stderr, seconds = log.read_text(errors="replace"), time.monotonic() - start
        log.write_text(f"{stderr}\n--- stdout ---\n{stdout}")
        if code != 0:
            last_lines = [one.strip().splitlines()[-1][:200] for one in (stdout, stderr) if one.strip()]
            print(*f"{stderr}\n{stdout}".strip().splitlines()[-12:], sep="\n", flush=True)
            outcome = "TOO SLOW" if code is None else f"FAIL {code}"
            self.row(label, outcome, " | ".join(last_lines) or "no output", seconds)
            return None
        try:
            detail = summary(stdout) if summary else ""
        except Exception as error:  # an unexpected output is a finding and must not stop the stage
            detail = f"(no summary: the output has an unexpected form: {type(error).__name__}: {error})"
        self.row(label, "ok", detail, seconds)
        return stdout

    def _execute(
        self, command: Sequence[object], log: Path, *, seconds: float, env: dict[str, str] | None
    ) -> tuple[int | None, str]:
        """Run a command; return its exit code and its stdout. Its stderr goes to the file `log`.

        The exit code is None if the command was killed, because it ran for longer than `seconds`.
        """
        with log.open("w") as stderr:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
                env=os.environ | (env or {}),
                cwd=REPO,
                start_new_session=True,  # so that its children end with it
            )
            try:
                stdout = process.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None, process.communicate()[0]
        return process.returncode, stdout

    def call(self, label: str, function: Callable[[], object], *, least: float = 0.0) -> object | None:
        """Call a function as a step; return its result, or None if it raised an exception or did not run.

        The result as text is the line in the table.
        """
        if not self.wanted(label, least):
            return None
        start = time.monotonic()
        try:
            found = function()
        except Exception as error:
            self._log(label).write_text(traceback.format_exc())
            first = (str(error).strip() or "no message").splitlines()[0]
            self.row(label, "FAIL", f"{type(error).__name__}: {first[:160]}", time.monotonic() - start)
            return None
        self.row(label, "ok", str(found), time.monotonic() - start)
        return found

    def _log(self, label: str) -> Path:
        return self.logs / f"{label.replace(' ', '_').replace('/', '_')}.txt"

    def save(self) -> None:
        """Write the results so far to OUT/NAME.json."""
        seconds = round(time.monotonic() - self.begun, 1)
        record = {"stage": self.name, "seconds": seconds, "steps": self.rows, "facts": self.facts}
        (OUT / f"{self.name}.json").write_text(json.dumps(record, indent=1, default=str) + "\n")

    def finish(self, *more: Path) -> None:
        """Pack the logs and the files or folders in `more` into OUT/NAME.tar.gz, and print the table."""
        self.save()
        with tarfile.open(OUT / f"{self.name}.tar.gz", "w:gz") as archive:
            for path in (self.logs, *more):
                if path.exists():
                    archive.add(path, path.name)
        shutil.rmtree(self.logs)
        print(f"\n{self.name}: {time.monotonic() - self.begun:.0f} s")
        for one in self.rows:
            print(f"{one['step']:34.34} {one['outcome']:9.9} {one['seconds']:6.1f} s  {one['detail']}")


def machine() -> dict[str, str]:
    """Return what nvidia-smi reports of the first GPU: its name, driver, power, clocks, temperature and memory.

    If nvidia-smi cannot run, returns its error under the key `nvidia-smi`.
    """
    query = "name,driver_version,pstate,power.draw,power.limit,clocks.sm,clocks.mem,temperature.gpu,memory.total"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"nvidia-smi": str(error)}
    return dict(zip(query.split(","), map(str.strip, done.stdout.split(",")), strict=False))


def search_path(*folders: object) -> str:
    """Return a value for LD_LIBRARY_PATH: these folders, followed by the folders that it has now."""
    inherited = [one for one in os.environ.get("LD_LIBRARY_PATH", "").split(":") if one]
    return ":".join([*map(str, folders), *inherited])


def main() -> None:
    """Copy the parts (`take`), or copy and unpack them and run a stage (`run NAME`)."""
    action, *rest = sys.argv[1:] or ["help"]
    if action == "take":
        take()
    elif action == "run" and rest:
        take()
        os.environ["KIT"] = str(unpack(rest[0]))
        os.environ["PYTHONUNBUFFERED"] = "1"
        OUT.mkdir(parents=True, exist_ok=True)
        os.execv(sys.executable, [sys.executable, str(HOME / f"stage_{rest[0]}.py"), *rest[1:]])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
