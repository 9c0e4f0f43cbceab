"""TensorRT 10 calls a Python calibrator as engine/calibrator.py expects, and accepts the values that ours returns.

The first half is about the bindings: what they make of each answer. Most of it is silent, which is why our
own class, in the second half, answers only what is safe.
"""

import importlib.util
import json
import signal
from typing import Any

import pytest
import real

PREAMBLE = """
import json
import numpy as np
import tensorrt as trt
from trampoline import Builder

def fail(reason):
    raise RuntimeError(reason)

class Calibrator(trt.IInt8EntropyCalibrator2):
    def __init__(self, batch=lambda: None, cache=lambda: None):
        trt.IInt8EntropyCalibrator2.__init__(self)
        self.batch, self.cache = batch, cache
    def get_batch_size(self): return 3
    def get_batch(self, names): self.names = names; return self.batch()
    def read_calibration_cache(self): return self.cache()
    def write_calibration_cache(self, cache): self.written, self.kept = bytes(cache), cache

def show(**facts):
    print(json.dumps(facts), flush=True)
"""

OURS = (
    PREAMBLE
    + """
from toolchain.engine.calibrator import entropy_calibrator

uploads = []

def upload(name, array):
    uploads.append([name, array.tolist(), str(array.dtype), array.flags.c_contiguous])
    return 1000 + len(uploads)

def batches(count):
    for row in range(count):
        yield {"input_ids": np.full((1, 2), row, np.int32), "attention_mask": np.ones((1, 2), np.int32)}

def facts(calibrator):
    written = calibrator.cache_written
    return {"error": repr(calibrator.error), "seen": calibrator.batches_seen,
            "written": None if written is None else written.decode()}
"""
)


def drive(code: str, preamble: str = PREAMBLE) -> tuple[dict[str, Any], str]:
    """Run code in a process of its own; return what it showed and what was printed to stderr."""
    done = real.run(10, "-c", preamble + code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def batch_of(answer: str) -> tuple[Any, str]:
    facts, printed = drive(f"show(batch=Builder(Calibrator(batch=lambda: {answer})).batch('a', 'b'))")
    return facts["batch"], printed


def cache_of(answer: str) -> tuple[Any, str]:
    facts, printed = drive(f"show(cache=repr(Builder(Calibrator(cache=lambda: {answer})).read()))")
    return facts["cache"], printed


@pytest.mark.parametrize(
    "answer",
    ["[11, 12]", "(11, 12)", "[np.int64(11), np.int64(12)]", "np.array([11, 12], np.uint64)", "[11, 12, 13]"],
)
def test_integers_in_any_sequence_are_pointers(answer: str) -> None:
    assert batch_of(answer) == ([11, 12], "")


@pytest.mark.parametrize("answer", ["None", "[]"])
def test_none_is_the_end_of_the_data(answer: str) -> None:
    assert batch_of(answer) == (None, "")


@pytest.mark.parametrize("answer", ["[11.0, 12.0]", "{'a': 11, 'b': 12}", "[-1, -2]", "True", "'ab'"])
def test_a_value_that_is_not_a_pointer_ends_the_data_with_a_line_on_stderr(answer: str) -> None:
    batch, printed = batch_of(answer)
    assert batch is None
    assert "Exception caught in get_batch(): Unable to cast" in printed


def test_an_exception_ends_the_data_with_a_line_on_stderr() -> None:
    batch, printed = batch_of("fail('out of memory')")
    assert batch is None
    assert "Exception caught in get_batch(): RuntimeError: out of memory" in printed


def test_a_short_list_is_read_beyond_its_end() -> None:
    (first, second), printed = batch_of("[11]")
    assert (first, printed) == (11, "")
    assert second not in (11, 12)  # whatever lies there


def test_names_arrive_as_a_list_of_texts_and_the_batch_size_as_an_integer() -> None:
    facts, _ = drive("c = Calibrator(); b = Builder(c); b.batch('ids', 'mask'); show(n=c.names, size=b.batch_size())")
    assert facts == {"n": ["ids", "mask"], "size": 3}


@pytest.mark.parametrize(
    ("answer", "cache"),
    [("None", "None"), ("b'abc'", "b'abc'"), ("bytearray(b'abc')", "b'abc'"), ("memoryview(b'abc')", "b'abc'")],
)
def test_a_cache_is_any_buffer(answer: str, cache: str) -> None:
    assert cache_of(answer) == (cache, "")


def test_an_empty_cache_is_one_of_length_zero_and_not_none() -> None:
    assert cache_of("b''") == ("b''", "")


@pytest.mark.parametrize(("answer", "reason"), [("'abc'", "not an instance of 'buffer'"), ("fail('gone')", "gone")])
def test_a_text_or_an_exception_is_not_a_cache(answer: str, reason: str) -> None:
    cache, printed = cache_of(answer)
    assert cache == "None"
    assert "Exception caught in read_calibration_cache()" in printed
    assert reason in printed


def test_the_cache_to_write_is_a_view_of_memory_that_is_freed() -> None:
    code = "c = Calibrator(); Builder(c).write(b'abc'); show(kind=type(c.kept).__name__, w=c.written.decode(), "
    facts, _ = drive(code + "later=bytes(c.kept).decode())")
    assert facts == {"kind": "memoryview", "w": "abc", "later": "\0\0\0"}


@pytest.mark.parametrize("call", ["batch('a')", "read()"])
def test_a_missing_method_ends_the_process(call: str) -> None:
    done = real.run(10, "-c", f"{PREAMBLE}\nclass Half(trt.IInt8EntropyCalibrator2): pass\nBuilder(Half()).{call}")
    assert done.returncode == -signal.SIGSEGV


def test_a_missing_call_of_the_base_is_a_type_error() -> None:
    code = "class Own(trt.IInt8EntropyCalibrator2):\n    def __init__(self): pass\nOwn()"
    done = real.run(10, "-c", PREAMBLE + code)
    assert "TypeError" in done.stderr
    assert "must be called when overriding __init__" in done.stderr


def test_11_has_no_calibrators() -> None:
    done = real.run(11, "-c", "import tensorrt as trt; print([name for name in dir(trt) if 'Calibrator' in name])")
    assert done.stdout.strip() == "[]"


def ours(code: str) -> tuple[dict[str, Any], str]:
    if importlib.util.find_spec("toolchain.engine.calibrator") is None:
        pytest.skip("toolchain/engine/calibrator.py is not there yet")
    return drive(code, OURS)


def test_ours_feeds_every_batch_in_the_order_of_the_names() -> None:
    facts, printed = ours("""
calibrator = entropy_calibrator(trt, batches(2), cache=None, upload=upload)
builder = Builder(calibrator)
asked = [builder.batch("attention_mask", "input_ids") for _ in range(4)]
show(asked=asked, uploads=uploads, cache=builder.read(), **facts(calibrator))
""")
    assert facts["asked"] == [[1001, 1002], [1003, 1004], None, None]
    assert [entry[:2] for entry in facts["uploads"]] == [
        ["attention_mask", [[1, 1]]],
        ["input_ids", [[0, 0]]],
        ["attention_mask", [[1, 1]]],
        ["input_ids", [[1, 1]]],
    ]
    assert {tuple(entry[2:]) for entry in facts["uploads"]} == {("int32", True)}
    assert (facts["seen"], facts["error"], facts["cache"], facts["written"]) == (2, "None", None, None)
    assert printed == ""


def test_ours_reads_a_batch_only_when_one_is_requested() -> None:
    facts, _ = ours("""
calibrator = entropy_calibrator(trt, batches(10), cache=None, upload=upload)
Builder(calibrator).batch("input_ids")
show(**facts(calibrator), uploads=len(uploads))
""")
    assert (facts["seen"], facts["uploads"]) == (1, 1)


@pytest.mark.parametrize(
    ("data", "how", "error"),
    [
        ("({} if n else fail('disk') for n in range(3))", "upload", "RuntimeError('disk')"),
        ("batches(3)", "lambda name, array: fail('no memory left')", "RuntimeError('no memory left')"),
        ("batches(3)", "lambda name, array: exit('stop')", "SystemExit('stop')"),
        ("[{'input_ids': np.ones((1, 2), np.int32)}]", "upload", "InputError("),
        ("[{name: np.ones((1, 2)) for name in ('input_ids', 'attention_mask')}]", "upload", "InputError("),
    ],
)
def test_ours_keeps_an_error_and_ends_the_data(data: str, how: str, error: str) -> None:
    facts, printed = ours(f"""
calibrator = entropy_calibrator(trt, {data}, cache=None, upload={how})
builder = Builder(calibrator)
show(asked=[builder.batch("input_ids", "attention_mask") for _ in range(2)], **facts(calibrator))
""")
    assert facts["asked"] == [None, None]
    assert facts["seen"] == 0
    assert facts["error"].startswith(error)
    assert printed == ""  # nothing reached C++


def test_ours_refuses_a_shape_that_the_engine_would_read_past() -> None:
    facts, _ = ours("""
shapes = {"input_ids": (1, 8), "attention_mask": (1, 8)}
calibrator = entropy_calibrator(trt, batches(1), cache=None, upload=upload, shapes=shapes)
show(asked=Builder(calibrator).batch("input_ids"), **facts(calibrator))
""")
    assert facts["asked"] is None
    assert "[1, 8]" in facts["error"]


def test_ours_returns_a_cache_and_no_batch() -> None:
    facts, _ = ours("""
calibrator = entropy_calibrator(trt, batches(2), cache=b"TRT-101601-EntropyCalibration2", upload=upload)
builder = Builder(calibrator)
show(cache=builder.read().decode(), asked=builder.batch("input_ids"), uploads=uploads, **facts(calibrator))
""")
    assert facts["cache"] == "TRT-101601-EntropyCalibration2"
    assert (facts["asked"], facts["uploads"], facts["seen"]) == (None, [], 0)


def test_ours_treats_an_empty_cache_as_none() -> None:
    facts, _ = ours("show(cache=Builder(entropy_calibrator(trt, batches(1), cache=b'', upload=upload)).read())")
    assert facts["cache"] is None


def test_ours_copies_the_cache_that_is_written() -> None:
    facts, printed = ours("""
calibrator = entropy_calibrator(trt, batches(1), cache=None, upload=upload)
Builder(calibrator).write(b"TRT-101601-EntropyCalibration2\\nx: 3c010a14\\n")
show(**facts(calibrator))
""")
    assert facts["written"] == "TRT-101601-EntropyCalibration2\nx: 3c010a14\n"
    assert printed == ""
