"""The file of a sweep, its grid, keys and forecast."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweep.conftest import GRID
from toolchain.errors import UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.options import load_toml
from toolchain.sweep.cells import effective, expand, fits, make_cells, of_build, of_eval
from toolchain.sweep.forecast import forecast
from toolchain.sweep.here import impossible
from toolchain.sweep.study import Study, read_study

ROOT = Path(__file__).parent.parent.parent
VALUES = {
    "precision": st.sampled_from(["fp32", "fp16", "int8"]),
    "backend": st.sampled_from(["torch", "ort", "openvino", "trt"]),
    "batch_size": st.sampled_from(["1", "1,8,32"]),
    "attention": st.sampled_from(["native", "sdpa", "plugin"]),
    "calib_method": st.sampled_from(["entropy", "mse"]),
    "limit": st.integers(1, 3),
}
AXES = st.fixed_dictionaries({}, optional={key: st.lists(one, min_size=1, unique=True) for key, one in VALUES.items()})


@given(AXES.filter(bool), AXES)
def test_a_grid_has_each_combination_once_and_none_that_is_excluded(axes, table):
    exclude = (table,) if table and any(fits(table, one) for one in combinations(axes)) else ()
    left = [one for one in combinations(axes) if not any(fits(other, one) for other in exclude)]
    study = Study("s", (), axes, exclude)
    if not left:
        with pytest.raises(UsageError, match=r"exclusions leave 0 of .* cells"):
            expand(study)
        return
    grid = expand(study)
    shown = [json.dumps(one, sort_keys=True) for one in grid.combinations]
    assert len(set(shown)) == len(shown)
    assert len(grid.combinations) + grid.merged + grid.excluded == study.combinations
    assert all(effective(one) in grid.combinations for one in left)


def combinations(axes):
    found = [{}]
    for key, values in axes.items():
        found = [{**one, key: value} for one in found for value in values]
    return found


@given(AXES.filter(bool))
def test_names_and_keys_are_unique_and_do_not_depend_on_the_other_cells(axes):
    left = expand(Study("s", (), axes, ())).combinations
    cells = make_cells(left, lambda options: "machine")
    assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells)
    assert [make_cells([one], lambda options: "machine")[0] for one in left] == cells
    assert {cell.key for cell in cells}.isdisjoint(cell.key for cell in make_cells(left, lambda options: "another"))


@given(AXES)
def test_an_option_goes_to_the_build_or_to_the_evaluation(axes):
    for one in map(effective, combinations(axes)):
        assert {**of_build(one), **of_eval(one)} == {"backend": "ort", **one, **of_both(one)}


def test_the_seed_and_consents_go_to_both_commands():
    given = {"seed": 3, "trust_remote_code": True}
    assert given.items() <= of_build(given).items()
    assert of_eval(given) == given


def of_both(one):
    """PyTorch evaluates a precision of its own, with the bundle of FP32."""
    return {} if "precision" in one or one.get("backend") != "torch" else {"precision": "fp32"}


def test_backends_that_run_graphs_share_a_bundle_and_torch_needs_that_of_fp32():
    ort, openvino, torch, fp32 = (
        of_build({"precision": precision, "backend": backend, "limit": limit})
        for precision, backend, limit in (
            ("int8", "ort", 1),
            ("int8", "openvino", 2),
            ("bf16", "torch", 1),
            ("fp32", "ort", 1),
        )
    )
    assert ort == openvino
    assert torch == fp32 != ort


def test_attention_of_torch_and_the_shapes_of_an_engine_have_no_effect_elsewhere():
    given = {"attention": "sdpa", "batch_size": "1,8,32", "calib_method": "mse", "precision": "fp32"}
    assert effective({"backend": "ort", **given}) == {"backend": "ort", "precision": "fp32"}
    assert effective({"backend": "torch", **given}) == {"backend": "torch", "attention": "sdpa", "precision": "fp32"}
    plan = {"backend": "trt", "batch_size": "1,8,32", "calib_method": "mse", "precision": "int8"}
    assert effective(plan) == plan


def test_a_task_fills_the_pattern_of_the_checkpoint():
    assert effective({"model": "bert-{task}", "task": "rte"})["model"] == "bert-rte"


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 100))), st.lists(st.integers(0, 2)))
def test_a_forecast_lies_between_the_least_and_the_most_that_alike_commands_took(done, todo):
    found = forecast([{"a": one} for one in todo], [({"a": one}, seconds) for one, seconds in done])
    if not todo or not done:
        assert found == (None if todo else 0.0)
        return
    alike = [[seconds for other, seconds in done if other == one] or [seconds for _, seconds in done] for one in todo]
    assert sum(map(min, alike)) * 0.999 <= found <= sum(map(max, alike)) * 1.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRID.replace("precision", "precisions"), "unknown key 'precisions'. Did you mean precision?"),
        (GRID.replace("objectives", "objective"), "unknown key 'objective'. Did you mean objectives?"),
        (GRID.replace("latency", "latencies"), "the objective 'latencies' is unknown. Did you mean latency?"),
        (GRID.replace("int8", "int88"), "--precision int88: unknown. Did you mean int8?"),
        (GRID.replace("[10, 20]", "[]"), "limit has no value"),
        (
            GRID.replace("[10, 20]", str(list(range(1, 302)))),
            "1,204 cells, more than 1,000. Remove values",
        ),
        (GRID + "[[exclude]]\nbackends = 'ort'\n", "unknown key 'backends'. Did you mean backend?"),
        (GRID + "exclude = 3\n", "exclude is not a list of tables"),
        (GRID.replace("[10, 20]", "{a = 1}"), "--limit {'a': 1}: not a whole number"),
        (GRID.replace("[10, 20]", "[[10], [20]]"), "--limit [10]: not a whole number"),
        (GRID.replace("[10, 20]", "[1, true]"), "--limit True: not a whole number"),
        (GRID.replace('["latency"]', "[]"), "objectives is not a list of names"),
        (GRID + 'output = "here"\n', "unknown key 'output'"),
        (GRID + "allow_pickle = true\n", "allow_pickle can only be given on the command line"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(study, text, message):
    with pytest.raises(UsageError) as caught:
        read_study(study(text), [])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_assignment_replaces_a_key(study):
    assert read_study(study(), ["limit=[1, 2, 3]", "model=other-{task}"]).axes["limit"] == [1, 2, 3]
    assert read_study(study(GRID.replace("[10, 20]", str(list(range(1, 302))))), [], yes=True).combinations == 1204


def test_one_and_one_point_zero_are_the_same_threshold(study):
    axes = read_study(study(), ["threshold=[1, 1.0, 0.5]"]).axes
    assert json.dumps(axes["threshold"]) == "[1.0, 0.5]"


def test_an_exclusion_that_fits_no_cell_is_refused(study):
    with pytest.raises(UsageError, match=r"precision = \[\"fp16\"\]: no cell has these values"):
        expand(read_study(study(GRID + '[[exclude]]\nprecision = "fp16"\n'), []))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "./absent"}, "model ./absent: there is no such file or folder"),
        ({"data": "absent"}, "data absent: there is no such file or folder"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"model": "demo", "task": "nope"}, "--task nope"),
        ({"backend": "triton"}, "--backend triton: this backend needs the address of a server"),
        ({"model": "org/name", "backend": "ort"}, None),
    ],
)
def test_what_this_machine_lacks_is_the_reason_of_a_cell(options, reason):
    found = impossible(options)
    assert found is None if reason is None else str(found).startswith(reason)


@pytest.mark.parametrize(("name", "cells"), [("sweep", 24), ("glue", 18)])
def test_the_sweeps_of_the_repository_have_the_cells_that_documents_promise(name, cells):
    file = ROOT / f"eval/{name}.toml"
    assert len(expand(read_study(file, [])).combinations) == cells
    assert all(
        Recipe.make({key: value for key, value in one.items()}) for one in expand(read_study(file, [])).combinations
    )
    assert "exclude" in load_toml(file) or name == "glue"
