"""`toolchain sweep --ray ADDRESS`: run the cells of a sweep on the machines of a Ray cluster, one at a time on each.

Ray only distributes the cells. A task of Ray is the function `work`, which takes JSON and returns JSON. It runs on a
machine that has the resource METER, in a folder with the same path as the one where the sweep was started, and returns
the files of the cell. Every machine keeps the bundles that it builds. If a machine's files of model or data differ from
those here, it computes another key for the cell, and does not run it.
"""

import base64
import ipaddress
import json
import logging
import os
import platform
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict, cast

from toolchain import __version__
from toolchain.base.amounts import counted
from toolchain.base.files import write_bytes, write_json, write_text
from toolchain.errors import MachineError, first_line, innermost
from toolchain.records.sweep import CellRun
from toolchain.runtimes.environment import version_of
from toolchain.sweep import state
from toolchain.sweep.attempt import Say, attempt, fail
from toolchain.sweep.cells import Cell, Options, make_cells
from toolchain.sweep.depends import Digests, depends_on, machine, versions
from toolchain.sweep.runner import PROGRAM

log = logging.getLogger(__name__)

# Ray resource of the machines that run cells. Each cell takes all of it, so a machine runs one cell at a time.
METER = "meter"
# Resource that Ray gives to the machine on which a cluster's head runs.
HEAD = "node:__internal_head__"
START = f"""ray start --address HOST:PORT --resources='{{"{METER}": 1}}'"""

# Number of times that a cell is tried if its worker is lost.
ATTEMPTS = 2

# Seconds between two checks that a machine is left. Without the check, Ray would let cells wait for machines that are
# gone.
LOOK_S = 10.0

# Seconds after which a machine that has not sent its versions counts as unreachable.
ANSWER_S = 120.0

# Seconds after which a head that has not accepted a connection counts as unreachable. Ray itself would try for minutes.
CONNECT_S = 5.0

# Folder inside the sweep's folder. A machine runs its cells in a folder of its own there.
WORKERS = "workers"

# Environment variable that Ray sets in its workers and that changes a measurement. The workers get the value that it
# has in this process.
THREADS = "OMP_NUM_THREADS"

# Ray's own protection: every connection must show the cluster's token.
AUTH, TOKEN = "RAY_AUTH_MODE", "token"
SET_TOKEN = (
    f"Make a token with `ray get-auth-token --generate`, copy it to all machines, and set {AUTH}={TOKEN} on each"
)


class Request(TypedDict):
    """The request to a worker: the cell to run, the current folder (`at`), and the folder of the sweep below it."""

    cell: dict[str, object]
    at: str
    folder: str
    threads: str | None
    program: list[str] | None


class Reply(TypedDict):
    """The reply of a worker: its machine, and the files of the cell in base64, or why the cell did not run."""

    host: str
    files: dict[str, str]
    error: str | None


# Facts that must be the same on all machines: name -> value.
Facts = dict[str, object]


def work(text: str) -> str:
    """Run the cell of a `Request` and return a `Reply`, both in JSON; for an empty text, return the machine's facts."""
    if not text:
        return json.dumps(facts() | {"host": socket.gethostname(), AUTH: _auth()})
    return json.dumps(_worked(json.loads(text)))


def facts() -> Facts:
    """Return what must be the same on all machines: versions of packages, and the kind of machine."""
    here: Facts = {"toolchain": __version__, "python": platform.python_version(), "ray": version_of("ray")}
    return here | versions() | machine()


def _worked(asked: Request) -> Reply:
    host = socket.gethostname()
    reply: Reply = {"host": host, "files": {}, "error": None}
    cell = Cell(**asked["cell"])  # type: ignore[arg-type]  # as `asdict` wrote it
    try:
        os.chdir(asked["at"])
        folder = Path(asked["folder"]) / WORKERS / host
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.pop(THREADS, None)
        if asked["threads"] is not None:
            os.environ[THREADS] = asked["threads"]
        if _key(cell.options, folder, Path(asked["folder"])) != cell.key:
            return reply | {
                "error": f"{host}: the files of the model or the data differ from those on the machine where the sweep "
                f"was started. Copy those files to {host}"
            }
        place = folder / state.CELLS / cell.name
        _empty(place)
        attempt(folder, cell, asked["program"] or PROGRAM, log.info)
        for file in sorted(place.iterdir()):
            reply["files"][file.name] = base64.b64encode(file.read_bytes()).decode()
        _empty(place)
    except OSError as error:
        return reply | {"error": f"{host}: {first_line(error)}"}
    return reply


def _key(options: Options, folder: Path, own: Path) -> str:
    digests = Digests(folder / state.MEMORY, own=own)
    (cell,) = make_cells([options], depends_on(digests))
    digests.keep()
    return cell.key


def _empty(place: Path) -> None:
    """Remove the files of a cell except the record of its last run, by which `attempt` sees that a build failed."""
    for file in place.glob("*"):
        if file.name != state.RUN:
            file.unlink()


def spread(cells: Sequence[Cell], folder: Path, address: str, program: Sequence[str], tell: Say) -> Iterator[Cell]:
    """Run cells on the machines of a cluster, and yield each cell when its files are in the folder of the sweep.

    Raises:
        MachineError: Ray is not installed, the cluster cannot be reached or used, or all its machines are lost.
    """
    _require_token(address)
    ray = _ray()
    _connect(ray, address)
    try:
        gpus = _require_alike(ray, address)
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, resources={METER: 1})(work)
        text = {cell.name: json.dumps(_request(cell, folder, program)) for cell in cells}
        running = {task.remote(text[cell.name]): (cell, 1) for cell in cells}
        while running:
            done, _ = ray.wait(list(running), timeout=LOOK_S)
            if not done and not ray.cluster_resources().get(METER):
                raise MachineError(
                    f"--ray {address}: no machine is left, and {counted(len(running), 'cell')} did not run. "
                    "Repeat the command."
                )
            for one in done:
                cell, attempts = running.pop(one)
                if (reply := _reply(ray, one)) is not None:
                    _keep(folder, cell, reply, attempts, tell)
                    yield cell
                elif attempts < ATTEMPTS:
                    log.warning("%s: the worker was lost, so the cell runs again", cell.name)
                    running[task.remote(text[cell.name])] = (cell, attempts + 1)
                else:
                    reason = f"its worker was lost {attempts} times"
                    _failed(folder, cell, attempts, reason)
                    yield cell
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    # Otherwise Ray sends usage data to its maker.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MachineError(
            "--ray: Ray is not installed. Install it with: pip install 'encoder-toolchain[ray]'."
        ) from None
    except Exception as error:  # from a package that Ray imports, such as amdsmi without ROCm
        raise MachineError(
            f"--ray: Ray cannot be imported: {innermost(error)!r}. For the whole error, run: python -c 'import ray'."
        ) from None
    return cast(ModuleType, ray)


def _is_here(host: str) -> bool:
    """Return whether a host is a loopback address of this machine, which no other machine can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _auth() -> str:
    return os.environ.get(AUTH, "").lower()


def _require_token(address: str) -> None:
    """Make Ray use its token if the address is not loopback; call this before Ray is imported.

    Raises:
        MachineError: the environment variable RAY_AUTH_MODE turns tokens off.
    """
    host = address.rpartition(":")[0].strip("[]")
    if host and not _is_here(host) and os.environ.setdefault(AUTH, TOKEN).lower() != TOKEN:
        raise MachineError(f"--ray {address}: with {AUTH}={_auth()}, anybody can run programs there. {SET_TOKEN}.")


def _connect(ray: ModuleType, address: str) -> None:
    """Connect to a running cluster.

    Raises:
        MachineError: the cluster cannot be reached.
    """
    if address != "auto":
        _require_listener(address)
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False)
    except Exception as error:  # Ray raises its own errors and errors of the system
        said = " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
        raise MachineError(
            f"--ray {address}: {said}. Start a cluster with `ray start --head`. If a cluster runs there, use its "
            f"versions of Ray and Python, its {AUTH} and its token here."
        ) from None


def _require_listener(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:  # the port or the name may be invalid
        raise MachineError(
            f"--ray {address}: nothing answers there ({first_line(error)}). Start a cluster with `ray start --head`, "
            "and give the address that it prints."
        ) from None


def _require_alike(ray: ModuleType, address: str) -> int:
    """Check that the machines of a cluster are like this one; return the number of GPUs that a cell takes, 0 or 1.

    Raises:
        MachineError: a machine differs, or cannot run cells; the message names it and the difference.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = facts()
    gpus = int(bool(here["gpus"]))
    nodes = [one for one in ray.nodes() if one["Alive"]]
    if not any(one["Resources"].get(METER) for one in nodes):
        raise MachineError(
            f"--ray {address}: no machine of the cluster has the Ray resource {METER!r}, so no cell can run. "
            f"On each machine that is to run cells, start Ray with: {START}"
        )
    for node in nodes:
        if node["Resources"].get(METER, 1) != 1:
            where = f"--ray {address}: {node['NodeManagerAddress']}"
            count = f"{METER} {node['Resources'][METER]:g} times"
            raise MachineError(f"{where} has the resource {count}, so its cells would overlap. Start it with: {START}.")
        if METER in node["Resources"]:
            _require_room(address, node, gpus)
    # The head admits other machines, so its token is checked even if it runs no cell.
    asked = [one for one in nodes if METER in one["Resources"] or HEAD in one["Resources"]]
    asks = [
        ray.remote(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(one["NodeID"], soft=False)
        )(work).remote("")
        for one in asked
    ]
    try:
        answers: list[Facts] = [json.loads(one) for one in ray.get(asks, timeout=ANSWER_S)]
    except ray.exceptions.RayError as error:
        raise MachineError(f"--ray {address}: a machine cannot report its versions: {_last_line(error)}.") from None
    for node, there in zip(asked, answers, strict=True):
        _require_same(address, here, there, machines=METER in node["Resources"])
    shut = all(_is_here(node["NodeManagerAddress"]) for node in nodes)
    if not shut and {_auth(), *(one[AUTH] for one in answers)} != {TOKEN}:
        raise MachineError(f"--ray {address}: other machines can reach this cluster, and it has no token. {SET_TOKEN}.")
    return gpus


def _require_room(address: str, node: dict[str, Any], gpus: int) -> None:  # Ray's description of a machine
    """Check that Ray knows of a CPU on a machine, and of as many GPUs as a cell takes; else no cell would start.

    Raises:
        MachineError: it knows of too few.
    """
    for kind, least in (("CPU", 1), ("GPU", gpus)):
        if node["Resources"].get(kind, 0) < least:
            raise MachineError(
                f"--ray {address}: {node['NodeManagerAddress']} has the resource {METER} but no {kind}, so no cell "
                f"would run there. Start it with --num-{kind.lower()}s {least} or more."
            )


def _require_same(address: str, here: Facts, there: Facts, *, machines: bool = True) -> None:
    """Check that a machine has the same versions as this one and, with `machines`, is of the same kind.

    Raises:
        MachineError: it differs; the message has the first three differences.
    """
    ignored = {"host", AUTH, *(() if machines else machine())}
    differ = [key for key in {**here, **there} if key not in ignored and here.get(key) != there.get(key)]
    if differ:
        shown = "; ".join(
            f"{key} is {_shown(there.get(key))} there and {_shown(here.get(key))} here" for key in differ[:3]
        )
        raise MachineError(
            f"--ray {address}: {there['host']} differs from this machine: {shown}. Install the same versions, use "
            "machines of one kind, and start the sweep on one of them."
        )


def _shown(value: object) -> str:
    return "absent" if value is None else str(value)


def _request(cell: Cell, folder: Path, program: Sequence[str]) -> Request:
    return {
        "cell": asdict(cell),
        "at": os.getcwd(),
        "folder": str(folder),
        "threads": os.environ.get(THREADS),
        "program": None if program is PROGRAM else list(program),
    }


def _reply(ray: ModuleType, one: Any) -> Reply | None:  # a ray.ObjectRef
    """Return the reply of a worker; None if the worker was lost."""
    try:
        return cast(Reply, json.loads(ray.get(one)))
    except ray.exceptions.RayTaskError as error:
        return {"host": "", "files": {}, "error": _last_line(error)}
    except ray.exceptions.RayError:
        return None


def _last_line(error: BaseException) -> str:
    """Return the last line of an error's message, which for Ray's errors has the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _keep(folder: Path, cell: Cell, reply: Reply, attempts: int, tell: Say) -> None:
    """Write the files of a cell to the folder of the sweep, the result last, or record why the cell failed."""
    if reply["error"] is not None:
        _failed(folder, cell, attempts, reply["error"])
        return
    place, before = folder / state.CELLS / cell.name, state.read_run(folder, cell)
    state.remove_left(folder, cell)
    files = {Path(name).name: base64.b64decode(text) for name, text in reply["files"].items()}
    result = files.pop(state.RESULT, None)
    run: CellRun = json.loads(files.pop(state.RUN))
    run |= {"attempts": (before["attempts"] if before else 0) + attempts, "host": reply["host"]}
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(place / name, content)
    write_json(place / state.RUN, run)
    if result is None:
        log.warning("%s failed on %s: %s (log: %s)", cell.name, reply["host"], run["reason"], place / state.LOG)
        return
    write_bytes(place / state.RESULT, result)
    tell(f"{cell.name}: done on {reply['host']}")


def _failed(folder: Path, cell: Cell, attempts: int, reason: str) -> None:
    """Record a cell as failed, for `reason`, because no worker could complete it."""
    before = state.read_run(folder, cell)
    kept: CellRun = {
        "attempts": (before["attempts"] if before else 0) + attempts,
        "seconds": 0.0,
        "build_s": None,
        "exit_code": 1,
        "reason": reason,
        "size_mb": None,
    }
    file = folder / state.CELLS / cell.name / state.LOG
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, reason + "\n")
    fail(folder, cell, kept, file)
