import csv
import io
import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from toolchain.records.plain import cell, printable, printable_json

ANY = st.text(st.characters())


@given(ANY)
def test_a_text_has_no_control_character_and_keeps_everything_else(text: str) -> None:
    shown = printable(text)
    assert {one for one in shown if unicodedata.category(one) in ("Cc", "Cs")} <= {"\t", "\n"}
    assert not set(shown) & set("\u2028\u2029\u202e\u2066")
    plain = "".join(one for one in text if printable(one) == one)
    assert printable(plain) == plain


@given(ANY)
def test_json_that_is_shown_has_the_same_value(text: str) -> None:
    assert json.loads(printable(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


def test_every_text_of_json_is_printable() -> None:
    assert printable_json({"\x1b": [1, None, {"b": "\x9b"}]}) == {"\\u001b": [1, None, {"b": "\\u009b"}]}


def test_a_cell_is_no_formula_and_a_number_stays() -> None:
    rows = ["=1+1", "@SUM(1)", "+1+1", "-x", "\t=1", "\n=1", "\uff1d1", "'=1", "plain", "'tis", "a=b", "-1", -1.5, None]
    text = io.StringIO()
    csv.writer(text).writerow([cell(row) for row in rows])
    (read,) = csv.reader(io.StringIO(text.getvalue()))
    quoted = ["'=1+1", "'@SUM(1)", "'+1+1", "'-x", "'\t=1", "'\n=1", "'\uff1d1", "''=1"]
    assert read == [*quoted, "plain", "'tis", "a=b", "-1", "-1.5", ""]
