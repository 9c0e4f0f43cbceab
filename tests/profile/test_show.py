"""The table of a profile marks missing and unresolved values, and names the next step."""

import pytest

from toolchain.cli.show.profile import from_nsys, profiled


def energy(joules, interval=None, *, method="ablation", reason=None):
    return {
        "energy_j": joules,
        "energy_ci95_j": interval,
        "resolved": bool(interval and interval[0] > 0),
        "method": method,
        "reason": reason,
    }


NOTHING = energy(None, method="unavailable", reason="not_requested")


def record(**changes):
    groups = [{"group": "tokenise", "ms": 6.0, "share": 0.6}, {"group": "attention", "ms": 4.0, "share": 0.4}]
    made = {
        "artefact": {"file": "model.onnx"},
        "backend": "ort",
        "device": "cpu",
        "rows": 32,
        "rows_from": "the validation split",
        "tokens": {"slots": 1024, "real": 900, "length": 32},
        "groups": [one | NOTHING for one in groups],
        "remainder": NOTHING,
        "whole": NOTHING,
        "wall_ms": 8.0,
        "profiled_ms": 10.0,
        "overhead": 0.25,
        "placed_share": 0.994,
        "time_method": "profiler",
        "trace": None,
        "nsys_command": None,
    }
    return made | changes


def test_times_without_energy(capsys):
    profiled(record())
    shown = capsys.readouterr().out
    for text in (
        "model.onnx on ort, cpu: 32 rows of the validation split, 1024 positions, 900 of them tokens",
        "6.000",
        "60.0%",
        "█" * 10,
        "8.00 ms, 10.00 ms with the profiler (+25.0%)",
        "99.4% of the model's time belongs to a group",
        "toolchain profile --energy",
    ):
        assert text in shown
    assert "remainder" not in shown
    assert "J/call" not in shown  # nobody asked


def test_unresolved_energy_is_marked(capsys):
    found = record()
    groups = [found["groups"][0] | energy(0.1, [-0.1, 0.3]), found["groups"][1] | energy(2.0, [1.9, 2.1])]
    profiled(record(groups=groups, whole=energy(3.0, [2.9, 3.1], method="measured"), remainder=energy(0.9, [0.8, 1.0])))
    lines = capsys.readouterr().out.splitlines()
    line = {
        name: next(line for line in lines if line.strip().startswith(name))
        for name in ("tokenise", "attention", "remainder", "whole")
    }
    assert "ablation, not resolved" in line["tokenise"]
    assert "2 ± 0.1" in line["attention"]
    assert "not resolved" not in line["attention"]
    assert "0.9" in line["remainder"]
    assert "measured" in line["whole"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trace": "t.json"}, "open t.json in https://ui.perfetto.dev"),
        ({"nsys_command": "nsys profile X"}, "then: toolchain profile --nsys toolchain-profile.nsys-rep"),
        ({"time_method": "ablation"}, "the time of a part is the difference from a graph in which it is removed"),
        ({}, "the tokenizer takes the most time"),
    ],
)
def test_the_next_step_is_named(capsys, changes, text):
    profiled(record(**changes))
    assert text in " ".join(capsys.readouterr().out.split())


def test_a_recording_of_nsight_systems(capsys):
    groups = [{"group": "attention", "ms": 3.5, "share": 0.7}, {"group": "other", "ms": 1.5, "share": 0.3}]
    from_nsys({"file": "x.csv", "calls": 4, "groups": groups, "layers": [], "not_ours": ["NCCL:a"]})
    shown = capsys.readouterr().out
    assert "x.csv: 4 calls" in shown
    assert "3.500" in shown
    assert "1 ranges of other programs are not counted, such as NCCL:a" in shown
