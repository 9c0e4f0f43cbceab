import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.model import load_tokenizer
from toolchain.checkpoint.tokenize import (
    TextEncoder,
    Tokens,
    batches,
    batches_of,
    budget_batches,
    equal_length_batches,
)
from toolchain.data.rows import Text
from toolchain.errors import InputError, UsageError

BOTH = ("input_ids", "attention_mask")
ALL = (*BOTH, "token_type_ids")

lengths = st.lists(st.integers(0, 40), max_size=60).map(lambda values: np.array(values, np.int64))
slots = st.integers(1, 200)


def tokens(*sizes: int, equal_length: bool = False) -> Tokens:
    ids = [list(range(5, 5 + size)) for size in sizes]
    ones = [[1] * size for size in sizes]
    pad_values = {"input_ids": 3, "attention_mask": 0}
    return Tokens({"input_ids": ids, "attention_mask": ones}, pad_values, equal_length=equal_length)


def encode(tokenizer: Any, texts: list[Text], *, max_length: int, inputs: tuple[str, ...]) -> Tokens:
    return TextEncoder(tokenizer, max_length=max_length, inputs=inputs)(texts)


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Any:
    return load_tokenizer(tiny_bert)


@given(lengths, slots)
def test_budget_batches_hold_every_row_once(sizes: np.ndarray, budget: int) -> None:
    found = [int(row) for rows in budget_batches(sizes, max_slots=budget) for row in rows]
    assert sorted(found) == list(range(len(sizes)))


@given(lengths, slots)
def test_budget_batches_stay_in_the_budget_or_hold_one_row(sizes: np.ndarray, budget: int) -> None:
    for rows in budget_batches(sizes, max_slots=budget):
        assert len(rows) == 1 or len(rows) * sizes[rows].max() <= budget


@given(lengths, slots)
def test_budget_batches_come_longest_first(sizes: np.ndarray, budget: int) -> None:
    found = [sizes[row] for rows in budget_batches(sizes, max_slots=budget) for row in rows]
    assert found == sorted(sizes, reverse=True)


def test_budget_batches_are_as_large_as_the_budget_allows() -> None:
    assert [rows.tolist() for rows in budget_batches(np.array([2, 5, 2, 2]), max_slots=6)] == [[1], [0, 2, 3]]


@given(lengths, slots)
def test_equal_length_batches_hold_every_row_once_and_no_padding(sizes: np.ndarray, budget: int) -> None:
    batches = list(equal_length_batches(sizes, max_slots=budget))
    assert sorted(int(row) for rows in batches for row in rows) == list(range(len(sizes)))
    assert all(len(set(sizes[rows])) == 1 for rows in batches)
    assert all(len(rows) == 1 or sizes[rows].sum() <= budget for rows in batches)


def test_batch_pads_on_the_right_with_each_input_s_value() -> None:
    batch = tokens(2, 4).batch(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [[5, 6, 3, 3], [5, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_batch_pads_to_a_given_length_and_keeps_the_given_order() -> None:
    assert tokens(1, 2).batch(np.array([1, 0]), length=3)["input_ids"].tolist() == [[5, 6, 3], [5, 3, 3]]


def test_batch_does_not_truncate_a_row() -> None:
    with pytest.raises(ValueError, match="4 tokens"):
        tokens(1, 4).batch(np.array([0, 1]), length=3)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.data())
def test_batch_holds_the_rows_and_masks_the_padding(sizes: list[int], data: st.DataObject) -> None:
    known = tokens(*sizes)
    rows = np.array(data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1)))
    batch = known.batch(rows)
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], rows, strict=True):
        assert ids[mask == 1].tolist() == known.columns["input_ids"][row]
    assert batch["attention_mask"].sum() == known.lengths[rows].sum()


def test_rows_of_a_model_that_depends_on_padding_are_never_padded() -> None:
    mixed = tokens(4, 2, 4, 3, equal_length=True)
    for rows in ([0, 1], [1, 3]):
        with pytest.raises(ValueError, match="depend on padding"):
            mixed.batch(np.array(rows))
    with pytest.raises(ValueError, match="depend on padding"):
        mixed.take(np.array([0, 2])).batch(np.array([0]), length=8)
    plans = {
        "budget": [rows.tolist() for rows in batches(mixed, max_slots=64)],
        "positions": [rows.tolist() for rows in batches(mixed, max_slots=64, rows=np.array([3, 2, 0]))],
        "size": [rows.tolist() for rows in batches_of(mixed, 2)],
    }
    assert plans == {"budget": [[1], [3], [0, 2]], "positions": [[0], [1, 2]], "size": [[0, 2], [3], [1]]}


def test_encode_returns_the_named_inputs_without_padding(bert: Any) -> None:
    found = encode(bert, [("a good film",), ("no",)], max_length=128, inputs=BOTH)
    assert tuple(found.columns) == BOTH
    assert found.lengths.tolist() == [5, 3]


def test_encode_distinguishes_the_texts_of_a_pair(bert: Any) -> None:
    found = encode(bert, [("a good film", "no")], max_length=128, inputs=ALL)
    assert list(found.columns["token_type_ids"]) == [[0, 0, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize("max_length", [4, 7, 12])
def test_encode_truncates(bert: Any, max_length: int) -> None:
    text = "a good film and a bad film and a dull film"
    one = encode(bert, [(text,)], max_length=max_length, inputs=BOTH).columns["input_ids"][0]
    two = encode(bert, [(text, text)], max_length=max_length, inputs=BOTH).columns["input_ids"][0]
    assert len(one) == len(two) == max_length
    assert one[-1] == two[-1] == bert.sep_token_id


@pytest.mark.parametrize(("text", "least"), [(("good",), 3), (("good", "bad"), 4)])
def test_encode_refuses_a_length_without_room_for_text(bert: Any, text: tuple[str, ...], least: int) -> None:
    with pytest.raises(
        UsageError,
        match=rf"^--max-length {least - 1}: the {least - 1} special tokens .* leave no room .*\. Give {least}",
    ):
        encode(bert, [text], max_length=least - 1, inputs=BOTH)
    assert encode(bert, [text], max_length=least, inputs=BOTH).lengths.tolist() == [least]


SENTENCES = (
    "a good film",
    "",
    "no [SEP] a  film",
    "\u00dcn\u4e2d\U0001f600 x",
    "a good film and a bad film and a dull one",
)


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_roberta", "tiny_distilbert"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("split", [False, True])
def test_encode_equals_transformers(request: Any, kind: str, parts: int, split: bool) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    tokenizer.split_special_tokens = split
    texts = list(itertools.product(SENTENCES, repeat=parts))
    columns = [list(part) for part in zip(*texts, strict=True)]
    expected = tokenizer(*columns, truncation=True, max_length=9, return_token_type_ids=True)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    found = encode(tokenizer, texts, max_length=9, inputs=ALL)
    assert {name: list(found.columns[name]) for name in ALL} == {name: expected[name] for name in ALL}


def test_encode_takes_a_tokenizer_that_the_rust_library_lacks(bert: Any) -> None:
    class Slow:
        is_fast = False

        def __getattr__(self, name: str) -> Any:
            return getattr(bert, name)

        def __call__(self, *parts: Any, **options: Any) -> Any:
            return bert(*parts, **options)

    slow: Any = Slow()
    found = encode(slow, [("a good film",), ("no",)], max_length=128, inputs=BOTH)
    assert list(found.columns["input_ids"]) == bert(["a good film", "no"])["input_ids"]


def test_encode_pads_with_the_tokenizers_value(tiny_roberta: Path) -> None:
    found = encode(load_tokenizer(tiny_roberta), [("a",), ("a good film",)], max_length=9, inputs=BOTH)
    assert found.batch(np.array([0, 1]))["input_ids"][0].tolist()[-2:] == [1, 1]


def test_encode_without_a_padding_token_is_refused(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer.pad_token = None
    with pytest.raises(UsageError, match=r"^the tokenizer lacks a padding token\. Add pad_token to tokenizer_config"):
        encode(tokenizer, [("a",)], max_length=9, inputs=BOTH)


def test_a_token_that_the_embedding_table_lacks_is_refused_with_its_text(bert: Any) -> None:
    largest, token = max((index, token) for token, index in bert.get_vocab().items())
    encoder = TextEncoder(bert, max_length=9, inputs=BOTH, vocabulary=largest)
    assert encoder([("a good film",)]).lengths.tolist() == [5]
    word = next(word for word in ("goodly", "gooder") if largest in bert(word)["input_ids"])
    with pytest.raises(InputError, match=rf"^the text a {word} has the token '{token}' with the id {largest}, but the"):
        encoder([("a film",), (f"a {word}",)])


ODD = ("", " ", "\n\t", "\0", "[CLS] [PAD] [SEP]", "##ing", "\u00e4\u0308\u00df", "\u65e5\u672c\u8a9e", "a" * 300)
LONG = ("good bad " * 200, " ".join(str(number) for number in range(300)))
TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("good bad .,[]#")), min_size=0, max_size=80
)


def ids_of_each(tokenizer: Any, texts: list[Text]) -> dict[str, list[list[int]]]:
    """The ids of rows: in the evaluator, one by one as in the service, in Triton's tokenizer, and in transformers."""
    from tokenizers import Tokenizer

    encoder = TextEncoder(tokenizer, max_length=24, inputs=ALL)
    assert encoder.rust is not None
    alone = Tokenizer.from_str(encoder.rust.to_str())
    alone.encode_special_tokens = encoder.split_special_tokens
    written = alone.encode_batch([text if len(text) == 2 else text[0] for text in texts])
    columns = [list(part) for part in zip(*texts, strict=True)]
    known = tokenizer(*columns, truncation=True, max_length=24, return_token_type_ids=True)
    found = {
        "evaluator": encoder(texts),
        "triton": Tokens(
            {"input_ids": [row.ids for row in written], "token_type_ids": [row.type_ids for row in written]}, {}
        ),
        "transformers": Tokens({name: known[name] for name in ("input_ids", "token_type_ids")}, {}),
    }
    joined = {name: [*one.columns["input_ids"], *one.columns["token_type_ids"]] for name, one in found.items()}
    single = [encoder([text]).columns for text in texts]
    joined["service"] = [row[name][0] for name in ("input_ids", "token_type_ids") for row in single]
    return joined


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_roberta"])
@pytest.mark.parametrize("parts", [1, 2])
def test_every_user_of_texts_gets_the_ids_of_transformers(
    request: Any, kind: str, side: str, split: bool, parts: int
) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    tokenizer.truncation_side, tokenizer.split_special_tokens = side, split
    texts = [(*ODD, *LONG)[index : index + parts] for index in range(len(ODD) + 1)]
    found = ids_of_each(tokenizer, texts)
    assert found["evaluator"] == found["service"] == found["triton"] == found["transformers"]


@given(st.data())
def test_any_text_has_the_ids_of_transformers(bert: Any, data: Any) -> None:
    parts = data.draw(st.sampled_from([1, 2]))
    texts = data.draw(st.lists(st.tuples(*[TEXTS] * parts), min_size=1, max_size=3))
    found = ids_of_each(bert, texts)
    assert found["evaluator"] == found["service"] == found["triton"] == found["transformers"]


def test_a_class_that_does_more_than_its_rust_tokenizer_is_called_itself(bert: Any) -> None:
    class Normalising:
        is_fast = True

        def __getattr__(self, name: str) -> Any:
            return getattr(bert, name)

        def __call__(self, *parts: list[str], **options: Any) -> Any:
            return bert(*([text.replace("film", "movie") for text in part] for part in parts), **options)

    own: Any = Normalising()
    encoder = TextEncoder(own, max_length=9, inputs=BOTH)
    assert encoder.rust is None
    assert list(encoder([("a good film",)]).columns["input_ids"]) == bert(["a good movie"])["input_ids"]


def test_a_text_without_a_token_is_refused_alone_and_beside_others(bert: Any) -> None:
    """A tokenizer that adds no special tokens, as those of most decoders, gives an empty text no token at all."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    bare = type(bert.backend_tokenizer).from_str(bert.backend_tokenizer.to_str())
    bare.post_processor = processors.Sequence([])
    plain = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]")
    assert encode(plain, [("good film",)], max_length=8, inputs=BOTH).lengths.tolist() == [2]
    for texts in ([("",)], [("good film",), ("  ",)]):
        with pytest.raises(InputError, match="has no tokens, so the model cannot be run on it"):
            encode(plain, texts, max_length=8, inputs=BOTH)
