"""A plan of TensorRT-RTX is checked by the real library before it is read, and its runtime cache by its digests."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from toolchain.engine.api import create, make_logger
from toolchain.engine.releases import import_release
from toolchain.engine.rtx import FAULTS, RuntimeContexts, cache_file, check_validity, read_cache
from toolchain.errors import InputError, MachineError

HERE = Path("plans/sm75-rtx/model.plan")


@pytest.fixture
def trt():
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
    return import_release("trt-rtx")


@pytest.mark.parametrize("data", [b"", b"a plan", bytes(4096)])
def test_the_library_refuses_what_is_not_a_plan(trt, data):
    logger, messages = make_logger(trt)
    runtime = create(trt.Runtime, logger, messages)
    with pytest.raises(InputError, match=r"model\.plan: the file is not a plan of TensorRT-RTX\. Build it again"):
        check_validity(trt, runtime, data, HERE)


def test_each_diagnosis_of_the_library_has_a_text(trt):
    names = trt.EngineInvalidityDiagnostics.__members__
    assert set(names) == set(FAULTS)
    for name, member in names.items():
        runtime = SimpleNamespace(get_engine_validity=lambda data, bits=int(member): (trt.EngineValidity.INVALID, bits))
        with pytest.raises((InputError, MachineError)) as refused:
            check_validity(trt, runtime, b"", HERE)
        assert str(refused.value) == f"{HERE}: {FAULTS[name]}."
        assert isinstance(refused.value, InputError) == (name == "MALFORMED_ENGINE")


@pytest.mark.parametrize("validity", ["VALID", "SUBOPTIMAL"])
def test_a_valid_plan_passes(trt, validity):
    answer = (trt.EngineValidity.__members__[validity], 0)
    check_validity(trt, SimpleNamespace(get_engine_validity=lambda data: answer), b"", HERE)


def test_a_cache_is_read_only_as_it_was_written_and_for_its_plan(tmp_path):
    file = tmp_path / "runtime.cache"
    assert read_cache(file, "a") == b""
    file.write_bytes(cache_file(b"ker\nnels", "a"))
    assert read_cache(file, "a") == b"ker\nnels"
    assert read_cache(file, "b") == b""
    file.write_bytes(file.read_bytes()[:-1])
    assert read_cache(file, "a") == b""
    file.write_bytes(b"short")
    assert read_cache(file, "a") == b""


class Cache:
    """The runtime cache of an engine, which holds what it read and one kernel more."""

    def __init__(self):
        self.read = b""

    def deserialize(self, data):
        self.read = data
        return True

    def serialize(self):
        return self.read if self.read.endswith(b"+") else self.read + b"kernel+"


def contexts(plan, cache, asked=None, **choices):
    asked = [] if asked is None else asked
    config = SimpleNamespace(
        create_runtime_cache=lambda: cache,
        set_runtime_cache=lambda one: True,
        set_execution_context_allocation_strategy=lambda one: None,
    )
    context = SimpleNamespace(set_device_memory=lambda place, size: asked.append((place, size)))
    engine = SimpleNamespace(
        create_runtime_config=lambda: config,
        create_execution_context=lambda one: context if one is config else None,
        device_memory_size_v2=256,
    )
    given = {"cuda_graphs": False, "pinned": False, **choices}
    return RuntimeContexts(import_release("trt-rtx"), engine, plan, "a", **given), config


def test_kernels_are_kept_beside_the_plan_for_the_next_run(trt, tmp_path):
    plan, file = tmp_path / "model.plan", tmp_path / "runtime.cache"
    asked = []
    made, config = contexts(plan, Cache(), asked, cuda_graphs=True)
    assert made.create(4096)
    assert asked == [(4096, 256)]
    assert config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    made.close()
    assert read_cache(file, "a") == b"kernel+"
    again = Cache()
    contexts(plan, again)[0].close()
    assert again.read == b"kernel+"


def test_a_bundle_that_is_pinned_from_outside_reads_and_writes_no_cache(trt, tmp_path):
    file = tmp_path / "runtime.cache"
    file.write_bytes(cache_file(b"of somebody else", "a"))
    before, cache = file.read_bytes(), Cache()
    contexts(tmp_path / "model.plan", cache, pinned=True)[0].close()
    assert cache.read == b""
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_written_loses_only_the_cache(trt, tmp_path, caplog):
    contexts(tmp_path / "away" / "deeper" / "model.plan", Cache())[0].close()
    (tmp_path / "file").touch()
    contexts(tmp_path / "file" / "model.plan", Cache())[0].close()
    assert "so the next run compiles kernels again" in caplog.text
