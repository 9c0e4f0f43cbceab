"""The next command after a gate or a search: it keeps what the user asked for, and a sequence of them ends."""

import shlex

import pytest

from toolchain.bundle import Bundle
from toolchain.cli import parser
from toolchain.diagnose import way_on
from toolchain.diagnose.way_on import after_build, after_gate, after_tune
from toolchain.recipe import Recipe

GATE = Recipe(max_drop=1.0)


@pytest.fixture(params=[None, "T4"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(way_on, "gpu_facts", lambda: {"gpu": request.param})
    return request.param


@pytest.fixture
def bundle(tmp_path):
    def make(precision="int8", **recipe):
        artefacts = {"model.int8.cpu.onnx": ""}
        return Bundle(tmp_path / "b-int8", {"precision": precision, "artefacts": artefacts, "recipe": recipe})

    return make


def judged(verdict):
    return [{"file": "model.int8.cpu.onnx", "verdict": verdict, "comparison": {}}]


def best(file, **more):
    return {"backend": "ort", "device": "cpu", "artefact": {"file": file}, **more}


def words(command, bundle):
    return command.replace(str(bundle.path), "b")


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        (None, "toolchain eval 'a b' --device cpu --trust-remote-code"),
        ({"backend": "trt", "gpu": "T4"}, "toolchain eval 'a b' --backend trt --device cpu --trust-remote-code"),
        (
            {"backend": "trt-rtx", "gpu": None},
            "toolchain eval 'a b' --backend trt-rtx --device cpu --trust-remote-code, on a machine with that GPU",
        ),
    ],
)
def test_a_build_without_a_gate_is_evaluated_where_it_runs_and_with_the_same_consent(engine, command):
    done = {"bundle": "a b", **({"engine": engine} if engine else {})}
    assert after_build(done, Recipe(device="cpu", trust_remote_code=True)) == command


def test_what_passes_is_served(bundle):
    serve = [words(after_gate(bundle(), GATE, best(f"model.int8.{at}onnx"), []), bundle()) for at in ("cpu.", "")]
    assert serve == ["toolchain serve b", "toolchain serve b --file model.int8.onnx"]


def test_after_a_graph_that_ran_in_halves_its_engine_is_built(bundle):
    command = after_gate(bundle("fp16"), GATE, best("model.fp16.onnx", halves=True), [])
    assert words(command, bundle()) == "toolchain build b --backend trt, on the machine with the GPU"


@pytest.mark.parametrize(
    ("verdict", "recipe", "start"),
    [
        ("cannot tell", {}, "toolchain build b --data MORE_ROWS"),
        ("fails", {"calib_method": "entropy"}, "toolchain build b --calib-method auto"),
        ("fails", {"calib_method": "auto", "keep": ""}, "toolchain build b --precision fp32 -o b-fp32"),
    ],
)
def test_the_options_of_the_gate_go_with_it(bundle, monkeypatch, verdict, recipe, start):
    """Each option that the user gave, and that the bundle does not keep."""
    monkeypatch.setattr(way_on, "gpu_facts", lambda: {"gpu": None})
    asked = {"max_drop": 0.5, "confidence": 0.99, "strict": True, "backend": "ort", "device": "cpu"}
    consent = {"trust_remote_code": True}
    made = bundle(**recipe)
    command = after_gate(made, Recipe(**asked, **consent), None, judged(verdict))
    short = command.replace(str(made.path.with_name("b-fp32")), "b-fp32")
    options = "--max-drop 0.5 --confidence 0.99 --strict --backend ort --device cpu --trust-remote-code"
    assert words(short, made) == f"{start} {options}"
    given = vars(parser("build").parse_args(shlex.split(command)[1:]))
    assert {key: given[key] for key in asked} == asked


def test_a_failing_gate_ends_in_a_higher_precision_and_never_in_a_circle(bundle, gpu):
    """A user who follows the advice, and whose every gate fails."""
    recipe, precision, seen = {"calib_method": "entropy"}, "int8", []
    while not seen or not seen[-1].startswith("toolchain verify"):
        command = words(after_gate(bundle(precision, **recipe), GATE, None, judged("fails")), bundle())
        assert command not in seen
        seen.append(command)
        if "auto" in command:
            recipe = {"calib_method": "auto"}
        elif "tune" in command:  # its recipe has `keep`, even if nothing is to be excluded
            recipe = {"calib_method": "auto", "keep": "", "calibration": "calibration.json"}
        elif "--precision" in command:
            precision = command.partition("--precision ")[2].split()[0]
    kinds = [line.split()[1] for line in seen]
    assert kinds == ["build", "tune", *(["build"] * (2 if gpu else 1)), "verify"]


@pytest.mark.parametrize(
    ("enough", "exhausted", "command"),
    [
        (True, True, "toolchain build keep.toml --max-drop 0.5 --confidence 0.9"),
        (False, False, "toolchain tune b --max-drop 0.5 --confidence 0.9 --budget 80"),
        (False, True, "toolchain build b --precision fp32 -o b-fp32 --max-drop 0.5 --confidence 0.9"),
    ],
)
def test_after_tune(bundle, monkeypatch, enough, exhausted, command):
    monkeypatch.setattr(way_on, "gpu_facts", lambda: {"gpu": None})
    made = bundle()
    recipe = Recipe(confidence=0.9)
    found = after_tune(made, recipe, file="keep.toml", enough=enough, exhausted=exhausted, max_drop=0.5)
    assert words(found.replace(str(made.path.with_name("b-fp32")), "b-fp32"), made) == command
