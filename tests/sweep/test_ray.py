"""`sweep --ray`: on a cluster of two workers on this machine, of which one is lost in mid-cell."""

import base64
import itertools
import json
import shutil
import socket
import sys
import tempfile
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.sweep.conftest import GRID, STANDIN
from tests.sweep.test_sweep import FOLDER, runs, states
from toolchain.errors import MachineError, UsageError
from toolchain.sweep import Asked, spread, sweep
from toolchain.sweep.cells import Cell


@pytest.mark.parametrize("address", ["here", "ray://127.0.0.1:10001", "127.0.0.1:port", ""])
def test_what_is_no_address_is_refused(study, address):
    with pytest.raises(UsageError, match="not an address"):
        sweep(study(), Asked(ray=address), program=STANDIN)


def test_a_search_is_not_spread(study):
    with pytest.raises(UsageError, match="--search with --ray"):
        sweep(study(), Asked(ray="auto", search=3), program=STANDIN)


def test_without_ray_it_says_how_to_install_it(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match=r"pip install 'encoder-toolchain\[ray\]'"):
        sweep(study(), Asked(ray="auto"), program=STANDIN)
    assert runs() == []


def test_a_cluster_that_others_reach_needs_a_token(study, monkeypatch):
    """Ray is not asked to connect: the double has nothing that could."""
    monkeypatch.setitem(sys.modules, "ray", object())
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(MachineError, match="with RAY_AUTH_MODE=disabled, anybody can run programs there"):
        sweep(study(), Asked(ray="10.0.0.7:6379"), program=STANDIN)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("onnxruntime", "1.0", "onnxruntime is 1.0 there and"),
        ("ray", "2.52.0", "ray is 2.52.0 there and"),
        ("python", "3.11.0", "python is 3.11.0 there and"),
        ("toolchain", "0.0", "toolchain is 0.0 there and"),
        ("torch", None, "torch is absent there and"),
        ("threads", 1000, "threads is 1000 there and"),
    ],
)
def test_a_worker_that_differs_is_named(key, value, text):
    here = spread.facts()
    there = json.loads(spread.work(""))
    spread._require_same("auto", here, there)
    with pytest.raises(MachineError, match=f"{there['host']} differs from this machine: {text}"):
        spread._require_same("auto", here, there | {key: value})
    if key == "threads":  # a head that runs no cell may be another machine
        spread._require_same("auto", here, there | {key: value}, machines=False)
    else:
        with pytest.raises(MachineError):
            spread._require_same("auto", here, there | {key: value}, machines=False)


def test_a_worker_runs_a_cell_from_json_and_sends_its_files(study, tmp_path):
    """Without Ray: what goes to a worker and comes back is text."""
    cells = sweep(study(), Asked(dry_run=True))["cells"]
    asked = {key: cells[0][key] for key in ("options", "key", "name", "bundle")}
    request = {"at": str(tmp_path), "folder": "x", "threads": None, "program": list(STANDIN)}
    reply = json.loads(spread.work(json.dumps(request | {"cell": asked})))
    assert reply["error"] is None
    assert set(reply["files"]) == {"log.txt", "p.npz", "result.json", "run.json"}
    assert len(runs()) == 1
    other = json.loads(spread.work(json.dumps(request | {"cell": asked | {"key": "another"}})))
    assert "the files of the model or the data differ" in other["error"]
    nowhere = json.loads(spread.work(json.dumps(request | {"cell": asked, "at": str(tmp_path / "absent")})))
    assert "No such file or directory" in nowhere["error"]
    assert len(runs()) == 1


def test_a_worker_builds_again_what_a_failed_build_left(study, tmp_path, monkeypatch):
    found = next(one for one in sweep(study(), Asked(dry_run=True))["cells"] if one["options"]["precision"] == "int8")
    asked = {key: found[key] for key in ("options", "key", "name")} | {"bundle": "int8-1"}
    request = {"at": str(tmp_path), "folder": "x", "threads": None, "program": list(STANDIN), "cell": asked}
    reasons = []
    for fault in ({"bundles/int8": "exit"}, {"build": "segfault"}):
        monkeypatch.setenv("STANDIN_FAULT", json.dumps(fault))
        reply = json.loads(spread.work(json.dumps(request)))
        reasons.append(json.loads(base64.b64decode(reply["files"]["run.json"]))["reason"])
        left = tmp_path / "x" / spread.WORKERS / reply["host"] / "bundles/int8-1"
        left.mkdir(parents=True, exist_ok=True)
        (left / "bundle.json").write_text("{}")
    assert reasons == ["build: model.onnx: broken. Build it again.", "build: killed by SIGSEGV"]


def test_an_address_where_nothing_answers_is_refused_without_ray(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", object())  # it has nothing that could connect
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for one in (address, "127.0.0.1:99999"):
        with pytest.raises(MachineError, match=f"--ray {one}: nothing answers there"):
            sweep(study(), Asked(ray=one), program=STANDIN)


def test_what_ray_says_becomes_one_line():
    """Its versions are on lines of their own, and its advice is for options of its own."""

    def init(*_, **__):
        raise RuntimeError(
            "Version mismatch: started with:\n    Ray: 2.52.0\n    Python: 3.11.7. Use the flag --address."
        )

    with pytest.raises(MachineError) as caught:
        spread._connect(SimpleNamespace(init=init), "auto")
    assert str(caught.value).startswith(
        "--ray auto: Version mismatch: started with: Ray: 2.52.0 Python: 3.11.7. Start a cluster with `ray"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("resources", "gpus", "kind"), [({"meter": 1}, 0, "CPU"), ({"CPU": 2, "meter": 1}, 1, "GPU")])
def test_a_machine_on_which_no_cell_can_start_is_refused(resources, gpus, kind):
    node = {"NodeManagerAddress": "10.0.0.8", "Resources": resources}
    with pytest.raises(MachineError, match=f"10.0.0.8 has the resource meter but no {kind}"):
        spread._require_room("auto", node, gpus)
    spread._require_room("auto", node | {"Resources": {"CPU": 1, "GPU": 1, "meter": 1}}, gpus)


def test_a_cell_that_no_worker_ended_is_a_failed_cell_with_a_log(study):
    record = sweep(study(), Asked(only="int8*"), program=STANDIN)
    (cell,) = [Cell(one["options"], one["key"], one["name"], "b") for one in record["cells"][:1]]
    spread._failed(FOLDER, cell, 2, "its worker was lost 2 times")
    first = sweep(study(), Asked(dry_run=True))["cells"][0]
    assert (first["state"], first["reason"], first["run"]["attempts"]) == ("failed", "its worker was lost 2 times", 2)
    assert (FOLDER / "cells" / cell.name / "log.txt").read_text() == "its worker was lost 2 times\n"
    assert states(sweep(study(), Asked(), program=STANDIN)) == {"done": 8}


@pytest.fixture
def cluster(study, monkeypatch, root):
    """Start a head and two workers with a meter each, and return its address and the file of a sweep."""
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        from ray.cluster_utils import Cluster
    except Exception as error:  # with zeus, Ray finds amdsmi, whose import fails with a KeyError where ROCm is missing
        pytest.skip(f"Ray cannot be imported: {error!r}")
    # `limit=10` of FP32 loses its machine, once; `limit=20` of openvino its worker, each time.
    monkeypatch.setenv("STANDIN_FAULT", json.dumps({"limit=10": "machine", "limit=20": "worker"}))
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets have short paths
    monkeypatch.setenv("RAY_TMPDIR", place)
    head = {"num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            made.add_node(num_cpus=4, resources={"meter": 1})
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_lost_worker_does_not_lose_its_cell_and_no_two_cells_overlap(cluster, study, monkeypatch):
    file = study(GRID.replace("[10, 20]", "[10, 20, 30, 40]"))
    compared, same = [], spread._require_same
    monkeypatch.setattr(spread, "_require_same", lambda *a, machines: (compared.append(machines), same(*a)))
    record = sweep(file, Asked(ray=cluster), program=STANDIN)
    assert states(record) == {"done": 12, "failed": 4}
    assert sorted(compared) == [False, True, True]  # the head and two workers
    by_limit = {limit: [one for one in record["cells"] if one["options"]["limit"] == limit] for limit in (10, 20)}
    # A machine was lost once: its cell ran again on the other one.
    assert sorted(one["run"]["attempts"] for one in by_limit[10]) == [1, 1, 1, 2]
    assert {one["state"] for one in by_limit[10]} == {"done"}
    # A cell that loses its worker each time is a record.
    assert {(one["state"], one["reason"], one["run"]["attempts"]) for one in by_limit[20]} == {
        ("failed", "its worker was lost 2 times", 2)
    }
    spans = sorted((start, end) for _, start, end in runs())
    assert len(spans) == 12
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    # The files are those that a sweep without Ray writes.
    assert Counter(path.name for path in FOLDER.glob("cells/*/*")) == {
        "log.txt": 16,
        "run.json": 16,
        "result.json": 12,
        "p.npz": 12,
    }
