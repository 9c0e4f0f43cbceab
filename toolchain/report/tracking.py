"""`report --to`: each result becomes a run in MLflow or in Weights & Biases.

A run has the digest of its result, so that a later call finds it and does not write it again.
"""

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from toolchain.base.files import sha256_json
from toolchain.errors import MachineError, UsageError
from toolchain.records.result import Result
from toolchain.records.tracking import Tracked, TrackedRun

log = logging.getLogger(__name__)

# Name of the experiment in which the runs are, and of the tag with the digest of a result.
EXPERIMENT, DIGEST = "toolchain", "toolchain.sha256"

# Keys of a result that become parameters of the run. The numbers below FIGURES, and the keys OF_ENERGY of the energy
# block, become its metrics.
PARAMETERS = ("model", "task", "split", "n", "backend", "device", "precision", "variant", "max_length", "seed")
FIGURES = ("metrics", "agreement", "latency_ms", "throughput_per_s", "runtime_throughput_per_s", "peak_memory_mb")
OF_ENERGY = ("per_inference_j", "per_token_j", "per_correct_j", "total_j", "mean_power_w")

# `Write` writes a result to the server. `Failures` are the exceptions that it raises if the server cannot be used.
Write = Callable[[Result], TrackedRun]
Failures = tuple[type[Exception], ...]

# Environment variables for MLflow. If the server is down, it would retry for minutes; with these it fails soon. It also
# does not send usage data to its makers.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def track(results: Sequence[Result], to: str, *, tell: Callable[[str], None] = log.info) -> Tracked:
    """Write each result as a run to a tracking server, unless it is there already; return the runs.

    `to` is `mlflow`, `mlflow:URI` such as mlflow:http://127.0.0.1:5000, or `wandb`. `tell` is called with a line of
    progress for each run.

    Raises:
        MachineError: the package is not installed, or its server cannot be used. Runs written before that remain.
        UsageError: `to` is none of these.
    """
    kind, colon, place = to.partition(":")
    to = without_key(to)
    if kind not in ("mlflow", "wandb") or (kind == "wandb" and colon):
        raise UsageError(f"--to {to}: unknown. Give --to mlflow, --to mlflow:URI or --to wandb.")
    write, failure = _mlflow(place or None) if kind == "mlflow" else _wandb()
    runs = []
    try:
        for result in results:
            runs.append(write(result))
            tell(f"{runs[-1]['result']}: run {runs[-1]['run']}, {runs[-1]['state']}")
    except failure as error:
        raise MachineError(
            f"--to {to}: the tracking server cannot be used ({type(error).__name__}). "
            "Start it or correct its address, then repeat the command. Results that were written are not written again."
        ) from error
    return {"to": to, "runs": runs}


def without_key(to: str) -> str:
    """Return an address with `***` in place of the user name and password that it may contain."""
    return re.sub(r"(?<=//).*@", "***@", to)


def _mlflow(place: str | None) -> tuple[Write, Failures]:
    client, failure = _open(place)
    experiment = functools.cache(lambda: _experiment(client))
    return lambda result: _tracked(client, experiment(), result), failure


def _wandb() -> tuple[Write, Failures]:
    """Return a function that writes a result to Weights & Biases, and the exceptions that it raises on failure."""
    try:
        import wandb
        from wandb.errors import Error
    except ImportError as error:
        raise MachineError(
            "--to wandb: wandb is not installed. Install it with: pip install 'encoder-toolchain[wandb]'."
        ) from error
    quiet = wandb.Settings(
        silent=True, console="off", disable_code=True, disable_git=True, x_disable_stats=True, init_timeout=10
    )

    def write(result: Result) -> TrackedRun:
        record, digest = _record(result)
        with wandb.init(
            project=EXPERIMENT,
            id=digest[:32],  # a second call resumes this run, even after an offline run was synchronised
            resume="allow",
            name=_name(result),
            config={key: record[key] for key in PARAMETERS if record.get(key) is not None} | {DIGEST: digest},
            settings=quiet,
        ) as run:
            for key, value in figures(result):
                run.summary[key] = value
            kept = wandb.Artifact(f"result-{digest[:32]}", "result")
            with kept.new_file("result.json") as file:
                file.write(_text(record))
            run.log_artifact(kept)
            state: Literal["written", "there"] = "there" if run.resumed else "written"
        return {"result": result["file"], "sha256": digest, "run": digest[:32], "state": state}

    return write, (Error, OSError)


def _open(place: str | None) -> tuple[Any, Failures]:
    """Return a client of the MLflow server at `place`, and the exceptions that it raises on failure.

    If `place` is None, MLflow's own settings name the server.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import requests
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MachineError(
            "--to mlflow: MLflow is not installed. Install it with: pip install 'encoder-toolchain[mlflow]'."
        ) from error
    failure = (MlflowException, requests.RequestException, OSError)
    try:
        return MlflowClient(place), failure
    except failure as error:
        shown = without_key(f"mlflow:{place}")
        raise UsageError(
            f"--to {shown}: MLflow cannot use this address. Give that of a server: --to mlflow:http://HOST:PORT."
        ) from error


def _experiment(client: Any) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(EXPERIMENT))


def _tracked(client: Any, experiment: str, result: Result) -> TrackedRun:
    """Return the MLflow run of a result. The run is written, unless a finished one is there already.

    An unfinished run of the result, which an interrupted call left, is deleted first.
    """
    record, digest = _record(result)
    for run in client.search_runs([experiment], f"tags.`{DIGEST}` = '{digest}'"):
        if run.info.status == "FINISHED":
            return {"result": result["file"], "sha256": digest, "run": run.info.run_id, "state": "there"}
        client.delete_run(run.info.run_id)
    made = client.create_run(experiment, tags={DIGEST: digest}, run_name=_name(result)).info.run_id
    for key in PARAMETERS:
        if record.get(key) is not None:
            client.log_param(made, key, str(record[key])[:500])
    for key, value in figures(result):
        client.log_metric(made, key, value)
    client.log_text(made, _text(record), "result.json")
    client.set_terminated(made)
    return {"result": result["file"], "sha256": digest, "run": made, "state": "written"}


def _record(result: Result) -> tuple[dict[str, object], str]:
    """Return a result as it is in its file, without the key `file`, and the SHA-256 of the returned record."""
    record = {key: value for key, value in result.items() if key != "file"}
    return record, sha256_json(record)


def _name(result: Result) -> str:
    return f"{result['task']} {result['backend']} {result['variant']}"


def _text(record: Mapping[str, object]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False)


def figures(result: Result) -> Iterator[tuple[str, float]]:
    """Yield key and value of each figure that was measured. Keys are dotted, such as latency_ms.p50."""
    chosen: dict[str, object] = {key: result.get(key) for key in FIGURES}
    chosen |= {"energy": {key: result["energy"].get(key) for key in OF_ENERGY}}
    yield from _numbers(chosen, "")


def _numbers(value: object, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, float(value)
