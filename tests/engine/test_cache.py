"""The calibration cache survives the disk, and a cache that TensorRT's builder would ignore is refused."""

import json
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.cache import (
    cache_digest,
    cache_text,
    check_cache,
    header,
    parse_cache,
    read_cache,
    select_tensors,
    write_cache,
)
from toolchain.errors import InputError

VERSION = "10.16.1.11"
names = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), min_size=1)
amax = st.floats(1e-20, 1e30)


def test_the_text_is_that_of_tensorrt():
    first, *lines = cache_text({"a: b": 127.0, "c": 1.0}).splitlines()
    assert first == "TRT-101601-EntropyCalibration2"
    assert lines[0] == "a: b: 3f800000"
    assert struct.unpack(">f", bytes.fromhex(lines[1].rsplit(": ", 1)[1]))[0] == pytest.approx(1 / 127)
    assert cache_text({}, version="10.14.1.48") == "TRT-101401-EntropyCalibration2\n"


@given(st.dictionaries(names, amax))
def test_what_is_written_is_read_back(ranges):
    first, scales = parse_cache(cache_text(ranges, version=VERSION), where="x")
    assert first == header(VERSION)
    assert scales == {name: pytest.approx(value / 127, rel=1e-6) for name, value in ranges.items()}


@given(st.dictionaries(names, amax, min_size=1), st.data())
def test_a_cache_that_is_cut_off_is_refused(ranges, data):
    text = cache_text(ranges, version=VERSION)
    part = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(InputError):
        check_cache(part.encode(), where="x", version=VERSION, needed=list(ranges), about={}, fits={})


@pytest.mark.parametrize("word", ["00000000", "7f800000", "7fc00000", "bf800000", "3F800000", "3f8000", "00000001"])
def test_a_scale_that_is_not_above_zero_is_refused(word):
    with pytest.raises(InputError, match=r"line 2 is 'a: .*', not a tensor and its scale"):
        parse_cache(f"{header(VERSION)}\na: {word}\n", where="x")


@pytest.fixture
def cache(tmp_path):
    """A cache of two tensors and the file of its origin."""
    file = tmp_path / "c.cache"
    data = cache_text({"a": 1.0, "b": 2.0}, version=VERSION).encode()
    write_cache(file, data, {"model": "m", "cache_sha256": cache_digest(data)})
    return file


def check(file, **changes):
    data, about = read_cache(file)
    wanted = {"version": VERSION, "needed": ["a", "b"], "fits": {"model": "m"}, "where": str(file)}
    check_cache(data, about=about, **(wanted | changes))


def rewrite(change):
    return lambda file: file.write_bytes(change(file.read_bytes()))


def of_another(**changes):
    def change(file):
        origin = file.with_name("c.cache.json")
        origin.write_text(json.dumps(json.loads(origin.read_text()) | changes))

    return change


def test_a_good_cache_passes(cache):
    check(cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewrite(lambda data: data[:-4]), "cut off after 'b: 3"),
        (rewrite(lambda data: b"\xff\xfe"), "it is not text"),
        (rewrite(lambda data: b""), "not a calibration cache"),
        (rewrite(lambda data: data.replace(b"a: 3c", b"a: 3d")), "changed since it was written"),
        (
            rewrite(lambda data: data.replace(b"101601", b"101401")),
            "its header is TRT-101401-.* reads only TRT-101601-",
        ),
        (rewrite(lambda data: data.replace(b"Entropy", b"MinMax")), "its header is TRT-101601-MinMax"),
        (rewrite(lambda data: data.replace(b"b: ", b"q: ")), r"lacks a scale for b \(1 missing\)"),
        (
            lambda file: file.with_name("c.cache.json").unlink(),
            r"c\.cache\.json, which states the cache's origin, is missing",
        ),
        (lambda file: file.with_name("c.cache.json").write_text("[]"), r"c\.cache\.json, which states"),
        (lambda file: file.with_name("c.cache.json").write_text("{"), r"c\.cache\.json: the file is not JSON"),
        (of_another(model="other"), "made with model = 'other', but this build has 'm'"),
        (lambda file: file.unlink(), "No such file"),
    ],
)
def test_a_cache_that_the_builder_would_ignore_is_refused(cache, change, message):
    change(cache)
    with pytest.raises(InputError, match=message):
        check(cache)


def test_removed_tensors_are_not_checked():
    """A constant of zeros has a scale of zero in TensorRT's own cache."""
    first, kept = "TRT-101601-EntropyCalibration2\n", "layer.0.qkv: 3c010a14\n"
    data = f"{first}number.1: 0\n{kept}(Unnamed Layer* 3) [Constant]: 7f800000\n".encode()
    assert select_tensors(data, ["layer.0.qkv"], where="c") == (first + kept).encode()
    with pytest.raises(InputError, match=r"number\.1"):
        select_tensors(data, ["number.1", "layer.0.qkv"], where="c")


def test_a_pipe_and_an_origin_that_nests_too_deeply_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_cache(tmp_path / "pipe")
    (tmp_path / "c.cache").write_bytes(b"")
    (tmp_path / "c.cache.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        read_cache(tmp_path / "c.cache")
