"""config.pbtxt is written, and read as strictly as Triton reads it."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import InputError, UsageError
from toolchain.ship.config import ModelConfig, config_text, parse, read_config
from toolchain.ship.options import Options

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, st.dictionaries(texts, texts))
def test_any_string_survives_writing_and_reading(name, files):
    text = config_text({"name": name, "cc_model_filenames": files})
    assert text.isascii()
    found = parse(text)
    assert (found.name, dict(found.cc_model_filenames)) == (name, files)


def test_the_text_is_in_the_usual_layout():
    text = config_text(
        {
            "name": "m",
            "max_batch_size": 8,
            "input": [{"name": "x", "data_type": "TYPE_INT32", "dims": [-1]}],
            "parameters": {"k": {"string_value": 'a"b'}},
        }
    )
    assert text == (
        'name: "m"\nmax_batch_size: 8\ninput {\n  name: "x"\n  data_type: TYPE_INT32\n  dims: -1\n}\n'
        'parameters {\n  key: "k"\n  value {\n    string_value: "a\\"b"\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_sz: 8", 'no field named "max_batch_sz"'),
        ('max_batch_size: "8"', "1:17"),
        ("input { data_type: TYPE_INT33 }", "TYPE_INT33"),
        ("input [ {", "Expected"),
        ("dynamic_batching { } ensemble_scheduling { }", "oneof"),
    ],
)
def test_a_text_that_triton_refuses_is_refused(tmp_path, text, message):
    file = tmp_path / "config.pbtxt"
    file.write_text(text)
    with pytest.raises(
        InputError, match=r"config\.pbtxt: this is not a model configuration: .*\. Fix the file\.$"
    ) as caught:
        read_config(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"max_batch": 0}, {"queue": 0}, {"instances": 0}, {"backend": "tpu"}, {"version": 0}]
)
def test_options_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=f"--{next(iter(values)).replace('_', '-')} "):
        Options(**values)


FIELDS = """
import json
from tritonclient.grpc import model_config_pb2 as pb
def fields(message, seen):
    found = {}
    for field in message.fields:
        inner = field.message_type
        of = None if inner is None or inner.full_name in seen else fields(inner, seen | {inner.full_name})
        values = field.enum_type and {value.name: value.number for value in field.enum_type.values}
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
        one = field.containing_oneof and field.containing_oneof.name
        found[field.name] = [field.number, field.type, bool(many), one, values, of]
    return found
"""


def test_each_field_is_that_of_tritons_own_client(triton_environment):
    """The reference is independent: messages generated from Triton's sources."""
    code = FIELDS + "print(json.dumps(fields(pb.ModelConfig.DESCRIPTOR, frozenset())))"
    command = [triton_environment.folder / "bin/python", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scope = {"pb": None}
    exec(FIELDS.replace("from tritonclient.grpc import model_config_pb2 as pb", ""), scope)
    own = scope["fields"](ModelConfig.DESCRIPTOR, frozenset())
    assert json.loads(json.dumps(own)) == json.loads(done.stdout)
