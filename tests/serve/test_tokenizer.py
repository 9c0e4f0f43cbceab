"""The service's tokens equal the evaluator's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.model import find_model, load_tokenizer
from toolchain.checkpoint.tokenize import encode
from toolchain.errors import InputError, UsageError
from toolchain.serve.tokenizer import RustTokenizer

ODD = (
    "",
    " ",
    "\n\t",
    "\0",
    "\u200d",
    "[CLS] [PAD] [SEP]",
    "##ing",
    "ä̈ß",
    "日本語",
    "😀" * 40,
    "a" * 300,
    "good " * 200,
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(st.one_of(CHARACTERS, st.sampled_from("good bad .,[]#")), max_size=80)


@pytest.fixture(scope="module")
def both(checkpoints):
    """Return a function that makes both tokenizers of an architecture, truncated to 24 tokens."""

    def make(kind, columns):
        source = find_model("demo" if kind == "demo" else str(checkpoints[kind]))
        tokenizer = load_tokenizer(source.folder)
        return (
            RustTokenizer(tokenizer, columns=columns, max_length=24, inputs=source.inputs),
            lambda texts: encode(tokenizer, texts, max_length=24, inputs=source.inputs),
        )

    return make


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta", "demo"])
def test_odd_texts_have_the_same_tokens_alone_and_together(both, kind, columns):
    ours, evaluators = both(kind, columns)
    texts = [(text, *ODD[index - 1 : index][: columns - 1]) for index, text in enumerate(ODD, 1)]
    assert ours(texts) == evaluators(texts)
    assert [ours([text]) for text in texts] == [evaluators([text]) for text in texts]


@given(data=st.data())
def test_any_text_has_the_same_tokens(both, data):
    for kind, columns in (("demo", 1), ("bert", 2)):
        ours, evaluators = both(kind, columns)
        texts = data.draw(st.lists(st.tuples(*[TEXTS] * columns), min_size=1, max_size=3))
        assert ours(texts) == evaluators(texts)


def test_the_evaluators_truncation_does_not_affect_the_service(both):
    ours, evaluators = both("demo", 1)
    before = ours([("good " * 50,)])
    evaluators([("bad",)])
    assert ours([("good " * 50,)]) == before
    assert before.lengths.tolist() == [24]


def test_an_unsuitable_tokenizer_is_an_error_at_start(checkpoints):
    tokenizer = load_tokenizer(checkpoints["bert"])
    with pytest.raises(UsageError, match="special"):
        RustTokenizer(tokenizer, columns=1, max_length=2, inputs=("input_ids",))

    class Slow:
        is_fast = False

    with pytest.raises(InputError, match=r"tokenizer.json"):
        RustTokenizer(Slow(), columns=1, max_length=8, inputs=("input_ids",))
