"""The number of engines, their threads, and the solo engine, for machines of different size."""

import contextlib
from types import SimpleNamespace

import pytest

from toolchain.serve.batching import engines
from toolchain.serve.batching.engines import find_engines


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Return a function that opens engines for a machine; it returns the threads of each and the number of sessions."""

    def find(processors, instances=None, *, megabytes=9, backend="ort", device="cpu"):
        (graph := tmp_path / "model.onnx").write_bytes(b"")
        with graph.open("rb+") as file:
            file.truncate(megabytes << 20)
        monkeypatch.setattr(engines, "cpu_threads", lambda: processors)
        sessions = []

        @contextlib.contextmanager
        def open_runtime(backend, model, **choices):
            sessions.append(choices.get("threads"))
            yield choices.get("threads")

        monkeypatch.setattr(engines, "open_runtime", open_runtime)
        target = SimpleNamespace(backend=backend, device=device, model=graph, choices={"device": device})
        with find_engines(target, instances) as found, contextlib.ExitStack() as stack:
            side_by_side = [stack.enter_context(one()) for one in found.side_by_side]
            solo = stack.enter_context(found.solo()) if found.solo else None
        return side_by_side, solo, len(sessions)

    return find


@pytest.mark.parametrize(
    ("processors", "instances", "side_by_side", "solo"),
    [
        (1, None, [1], None),
        (2, None, [1, 1], 2),
        (4, None, [1] * 4, 4),
        (16, None, [4] * 4, 16),
        (2, 1, [2], None),
        (2, 5, [1] * 5, 2),
    ],
)
def test_engines_on_a_cpu_share_its_processors(opened, processors, instances, side_by_side, solo):
    sessions = 2 if solo else 1  # engines side by side share one
    assert opened(processors, instances) == (side_by_side, solo, sessions)


def test_a_small_graph_runs_on_one_thread(opened):
    assert opened(2, megabytes=2) == ([1, 1], None, 1)


def test_a_gpu_has_one_engine_by_default(opened):
    assert opened(8, backend="trt", device="cuda:0") == ([None], None, 1)
    assert opened(8, 2, device="cuda:0") == ([None, None], None, 2)
