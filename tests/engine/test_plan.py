"""A plan is run only on the GPU and the TensorRT that it was built for, or a compatible one."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.plan import Tag, check_plan, find_plan, is_plan, plan_backend, plans_of, read_plan
from toolchain.engine.shapes import Profile
from toolchain.errors import InputError, MachineError

T4 = Tag(75, "10.16.1.11")


@pytest.fixture
def plan(tmp_path):
    return make(tmp_path / "bundle", T4)


def make(bundle, tag, **changes):
    file = bundle / tag.folder / "model.plan"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a plan")
    record = {
        "schema": 1,
        "sm": tag.sm,
        "tensorrt": tag.tensorrt,
        "version_compatible": False,
        "profiles": [],
        "layout": "padded",
        "precision": "fp16",
        "options": {"hardware_compatible": "none"},
        "plan_sha256": hashlib.sha256(b"a plan").hexdigest(),
    }
    (file.parent / "plan.json").write_text(json.dumps(record | changes))
    return file


def test_a_tag_has_a_folder_and_a_text():
    assert T4.folder == "plans/sm75-trt10.16.1.11"
    assert str(T4) == "compute capability 7.5 with TensorRT 10.16.1.11"
    assert is_plan(f"{T4.folder}/model.plan")
    assert not is_plan("model.onnx")


def test_a_plan_that_was_built_here_passes(plan):
    assert check_plan(plan, T4)["precision"] == "fp16"


@pytest.mark.parametrize("here", [Tag(86, "10.16.1.11"), Tag(75, "10.16.1.12"), Tag(75, "10.14.1.48")])
def test_a_plan_of_another_machine_is_refused_with_advice(plan, here):
    with pytest.raises(MachineError) as refused:
        check_plan(plan, here)
    assert all(text in str(refused.value) for text in (str(T4), str(here), "toolchain build"))


RTX = "1.7.1.116"


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        (Tag(75, RTX, "trt-rtx"), Tag(75, RTX, "trt-rtx"), True),
        (Tag(75, RTX, "trt-rtx"), Tag(86, RTX, "trt-rtx"), False),
        (Tag(80, RTX, "trt-rtx"), Tag(120, RTX, "trt-rtx"), True),
        (Tag(86, RTX, "trt-rtx"), Tag(80, RTX, "trt-rtx"), False),
        (Tag(75, RTX, "trt-rtx"), Tag(75, "1.8.0.1", "trt-rtx"), False),
        (Tag(75, RTX, "trt-rtx"), T4, False),
        (T4, Tag(75, RTX, "trt-rtx"), False),
    ],
)
def test_a_plan_of_tensorrt_rtx_runs_in_its_version_and_from_ampere_on_on_later_gpus(tmp_path, built, here, runs):
    file = make(tmp_path, built, backend=built.backend)
    names = [f"{built.folder}/model.plan"]
    assert (plans_of(names, here.backend) == names) == (built.backend == here.backend)
    if runs:
        assert check_plan(file, here)
        assert find_plan(names, here, where=tmp_path) == names[0]
        return
    for look in (lambda: check_plan(file, here), lambda: find_plan(names, here, where=tmp_path)):
        with pytest.raises(MachineError, match=rf"toolchain build .* --backend {here.backend}\b"):
            look()


def test_the_backend_of_a_file_is_read_from_its_name():
    assert plan_backend(f"plans/sm75-rtx{RTX}/model.plan") == "trt-rtx"
    assert plan_backend(f"{T4.folder}/model.plan") == "trt"
    assert plan_backend("model.onnx") is None


@pytest.mark.parametrize(
    ("changes", "here", "runs"),
    [
        ({"version_compatible": True}, Tag(75, "10.17.0.1"), True),
        ({"version_compatible": True}, Tag(75, "11.4.0.106"), True),
        ({"version_compatible": True}, Tag(75, "10.9.0.34"), False),
        ({"version_compatible": True}, Tag(80, "10.17.0.1"), False),
        ({"options": {"hardware_compatible": "ampere-plus"}}, Tag(90, "10.16.1.11"), True),
        ({"options": {"hardware_compatible": "ampere-plus"}}, Tag(75, "10.16.1.11"), False),
        ({"options": {"hardware_compatible": "same-compute-capability"}}, Tag(90, "10.16.1.11"), False),
    ],
)
def test_a_compatible_plan_runs_on_the_machines_that_it_states(tmp_path, changes, here, runs):
    built = Tag(80 if "options" in changes else 75, T4.tensorrt)
    file = make(tmp_path, built, **changes)
    if runs:
        assert find_plan([f"{built.folder}/model.plan"], here, where=tmp_path) == str(file.relative_to(tmp_path))
    else:
        with pytest.raises(MachineError, match=rf"its plans: sm{built.sm}-trt10\.16\.1\.11"):
            find_plan([f"{built.folder}/model.plan"], here, where=tmp_path)


def test_the_plan_of_this_machine_comes_first(tmp_path):
    make(tmp_path, Tag(75, "10.10.0.1"), version_compatible=True)
    make(tmp_path, T4)
    names = [f"plans/{name}/model.plan" for name in ("sm75-trt10.10.0.1", "sm75-trt10.16.1.11")]
    assert find_plan(names, T4, where=tmp_path) == names[1]


def test_of_compatible_plans_that_for_the_latest_gpu_is_taken(tmp_path):
    names = []
    for sm in (80, 86):
        built = Tag(sm, RTX, "trt-rtx")
        make(tmp_path, built, backend="trt-rtx")
        names.append(f"{built.folder}/model.plan")
    assert find_plan(names, Tag(89, RTX, "trt-rtx"), where=tmp_path) == names[1]


def test_a_bundle_without_a_plan_is_refused(tmp_path):
    with pytest.raises(MachineError, match=r"its plans: none\)\. Build one here"):
        find_plan(["model.onnx"], T4, where=tmp_path)


def test_changed_bytes_are_refused(plan):
    plan.write_bytes(b"b plan")
    record = check_plan(plan, T4)
    with pytest.raises(InputError, match="changed since it was built, so this executable code is not loaded"):
        read_plan(plan, record)


def test_a_record_of_a_bundle_has_the_digest_that_the_bundle_lists(plan):
    file = plan.parent / "plan.json"
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert check_plan(plan, T4, digests=digests)
    file.write_text(file.read_text() + " ")
    with pytest.raises(InputError, match=r"plan\.json: changed since it was built\. Build"):
        check_plan(plan, T4, digests=digests)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "plan.json: the file is missing"),
        ("{", "plan.json: the file is broken"),
        ("[]", "plan.json: the file is broken"),
        ("{}", "broken"),
        ('{"schema": 2}', "its schema is 2"),
        ('{"schema": 1}', "sm is missing"),
    ],
)
def test_a_broken_record_is_refused(plan, text, message):
    record = plan.parent / "plan.json"
    record.unlink() if text is None else record.write_text(text)
    with pytest.raises(InputError, match=message):
        check_plan(plan, T4)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = ("schema", "backend", "sm", "tensorrt", "version_compatible", "profiles", "layout", "precision", "options")
RIGHT = {"version_compatible": True, "profiles": [{"batch": [1, 2, 3], "length": [1, 2, 3]}]}


@given(changes=st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=2))
def test_a_record_with_odd_values_is_used_or_refused_in_one_line(tmp_path_factory, changes):
    file = make(tmp_path_factory.mktemp("odd"), T4, **RIGHT | changes)
    try:
        record, message = check_plan(file, Tag(75, "10.17.0.1")), ""
    except (InputError, MachineError) as refused:
        record, message = {"profiles": []}, str(refused)
    assert "\n" not in message
    assert all(Profile.from_json(one) for one in record["profiles"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"backend": "trt-x"}, "backend is 'trt-x'"),
        ({"backend": ["trt"]}, r"backend is \['trt'\]"),
        ({"sm": "75"}, "sm is '75'"),
        ({"sm": None}, "sm is None"),
        ({"tensorrt": "ten"}, "tensorrt is 'ten'"),
        ({"profiles": [{"batch": [1, 2]}]}, "profiles.0.length is missing"),
        ({"profiles": [{"batch": [1, 2], "length": [1, 2, 3]}]}, r"profiles has \[1, 2\]"),
        ({"options": None}, "options is None"),
    ],
)
def test_a_record_of_other_types_is_refused_with_the_key_and_its_value(tmp_path, changes, fault):
    file = make(tmp_path, T4, **changes)
    with pytest.raises(InputError, match=rf"plan\.json: the file is broken \({fault}\)\. Build the plan again"):
        check_plan(file, T4)
