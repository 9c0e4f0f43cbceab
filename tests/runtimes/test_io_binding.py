"""A bound session gives the logits of a plain run, from buffers that are allocated once per shape (here on a CPU)."""

import numpy as np
import pytest

from toolchain.errors import UsageError
from toolchain.runtimes import io_binding
from toolchain.runtimes.io_binding import BoundSession
from toolchain.runtimes.ort import compute_nodes_on_cpu, cuda_options, open_ort, open_session

SHAPES = ((3, 9), (1, 1), (5, 17), (3, 9), (33, 12))


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_it_equals_a_plain_run(kind, graphs, exported, random_batch):
    session = open_session(exported[kind])
    held = BoundSession(session, "cpu", graphs=graphs)
    for shape in SHAPES:
        batch = random_batch(kind, *shape)
        np.testing.assert_allclose(held.run(batch), session.run(["logits"], batch)[0], atol=1e-5)


def test_logits_of_an_earlier_batch_do_not_change(exported, random_batch):
    held = BoundSession(open_session(exported["bert"]), "cpu")
    first, second = random_batch("bert", 4, 9), random_batch("bert", 4, 9)
    second["input_ids"] = second["input_ids"][::-1].copy()
    found = held.run(first)
    kept = found.copy()
    assert np.abs(held.run(second) - kept).max() > 1e-3
    np.testing.assert_array_equal(found, kept)


def test_addresses_of_a_shape_stay_the_same(exported, random_batch):
    held = BoundSession(open_session(exported["bert"]), "cpu", graphs=True)
    held.run(random_batch("bert", 3, 9))
    (one,) = held._kept.values()
    places = [value.data_ptr() for value in (*one.inputs.values(), one.logits)]
    held.run(random_batch("bert", 3, 14))  # of the same bucket
    (again,) = held._kept.values()
    assert [value.data_ptr() for value in (*again.inputs.values(), again.logits)] == places


def test_the_least_recently_used_shape_is_dropped(exported, random_batch, monkeypatch):
    monkeypatch.setattr(io_binding, "MOST_SHAPES", 2)
    held = BoundSession(open_session(exported["bert"]), "cpu")
    for shape in ((1, 5), (2, 5), (1, 5), (3, 5)):
        held.run(random_batch("bert", *shape))
    assert list(held._kept) == [(1, 5), (3, 5)]


def test_each_bucket_has_its_own_graph_up_to_a_limit(exported, random_batch, monkeypatch):
    monkeypatch.setattr(io_binding, "MOST_SHAPES", 2)
    held = BoundSession(open_session(exported["bert"]), "cpu", graphs=True)
    for rows in (1, 2, 3, 4):
        held.run(random_batch("bert", rows, 8))
    numbers = [one.options.get_run_config_entry("gpu_graph_id") for one in held._kept.values()]
    assert numbers == ["1", "2", "-1", "-1"]


def test_cuda_graphs_on_a_cpu_are_refused(exported):
    with (
        pytest.raises(UsageError, match="--cuda-graphs: a CPU has no CUDA graphs"),
        open_ort(exported["bert"], device="cpu", cuda_graphs=True),
    ):
        pass


def test_provider_options_are_texts_without_tf32():
    found = cuda_options("cuda:1", graphs=True)
    assert found | {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"} == found
    assert all(isinstance(value, str) for value in found.values())


def test_nodes_that_compute_on_the_cpu_are_found(exported):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(exported["bert"]), options, providers=["CPUExecutionProvider"])
    found = [name.split()[0] for name in compute_nodes_on_cpu(session)]
    assert found.count("MatMul") + found.count("FusedMatMul") >= 12
    assert "Shape" not in found
