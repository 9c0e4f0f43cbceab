"""Nsight Systems' table of NVTX ranges is read by the same groups, from a CSV or with nsys."""

import os
from pathlib import Path

import pytest

from toolchain.errors import InputError, MachineError
from toolchain.profile.nsys import nsys_command, read_nsys

HEAD = "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Style,Range"
ROWS = [
    ("40.0", 20_000_000, 2, "PushPop", ":call"),
    ("38.0", 16_000_000, 2, "PushPop", ":infer"),
    ("10.0", 6_000_000, 2, "PushPop", ":attention.0"),
    ("5.0", 5_000_000, 2, "PushPop", ":feed_forward.11"),
    ("4.0", 1_000_000, 2, "PushPop", ":attention"),
    ("3.0", 3_000_000, 4, "PushPop", ":copy"),
    ("2.0", 1_000_000, 2, "PushPop", ":tokenise"),
    ("9.0", 9_000_000, 7, "PushPop", "NCCL:ncclAllReduce"),
]


def table(rows=ROWS):
    lines = [f"{share},{total},{count},1.0,1.0,1,1,0.0,{style},{name}" for share, total, count, style, name in rows]
    return "\n".join([HEAD, *lines]) + "\n"


def test_ranges_become_groups_and_other_ranges_are_not_counted(tmp_path):
    file = tmp_path / "nvtx.csv"
    file.write_text("Processing [x.sqlite] with [nvtx_sum.py]...\n\n" + table())
    found = read_nsys(file)
    assert found["calls"] == 2
    assert {one["group"]: one["ms"] for one in found["groups"]} == {
        "tokenise": 0.5,
        "copy": 1.5,
        "attention": 3.5,
        "feed_forward": 2.5,
        "other": 2.0,
    }
    assert sum(one["share"] for one in found["groups"]) == pytest.approx(1)
    assert found["layers"][1] == {
        "name": "feed_forward.11",
        "group": "feed_forward",
        "layer": 11,
        "calls": 1,
        "ms": 2.5,
    }
    assert found["not_ours"] == ["NCCL:ncclAllReduce"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"lacks the columns Total Time \(ns\), Instances, Range"),
        (table(ROWS[1:]), "the report contains no NVTX range of `toolchain profile`"),
        (table([("1", "n/a", 2, "PushPop", ":call")]), "this is not a report of nsys"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_nsys(tmp_path / "x.csv")


def test_a_missing_file_is_refused():
    with pytest.raises(InputError, match=r"gone\.csv: the file cannot be read"):
        read_nsys(Path("gone.csv"))


def test_nsys_converts_a_recording(tmp_path, monkeypatch):
    recording = tmp_path / "run.nsys-rep"
    recording.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="nsys is not on the PATH"):
        read_nsys(recording)
    (tmp_path / "table.csv").write_text(table())
    tool = tmp_path / "nsys"
    tool.write_text(
        f'#!/bin/sh\n[ "$*" = "stats --report nvtx_sum --format csv --output - {recording}" ] || exit 3\n'
        f'while read -r line; do echo "$line"; done < {tmp_path}/table.csv\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert read_nsys(recording)["calls"] == 2
    tool.write_text("#!/bin/sh\necho broken recording >&2\nexit 1\n")
    with pytest.raises(InputError, match="nsys cannot read it: broken recording"):
        read_nsys(recording)


def test_the_command_is_quoted():
    found = nsys_command(["toolchain", "profile", "B"])
    assert found == "nsys profile -t cuda,nvtx -o toolchain-profile toolchain profile B"
