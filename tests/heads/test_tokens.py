"""Tags of words: entities as seqeval defines them, alignment, refusals, and planted faults."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tests.head_of import head_of
from toolchain.data.metrics import METRICS, entities_apart
from toolchain.data.rows import Rows, load_rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.compare import FAILS, PASSES, compare
from toolchain.evaluation.statistics import metric_ci95
from toolchain.heads.predictions import Predictions

IOB2 = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BIOES = ("O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC") for prefix in "BIES"))
HEADS = {scheme: head_of(*scheme, name="tokens") for scheme in (IOB2, BIOES)}
HEAD = HEADS[IOB2]
TASK = Task(name="t", text_columns=("w",), label_column="t", head="tokens")


def spans_of(text):
    """Return the tokens of a text: two characters each, a special token at both ends, punctuation as a word."""
    spans, word = [(-1, 0, 0)], -1
    for at, sign in enumerate(text):
        new = at == 0 or text[at - 1] == " " or not sign.isalnum()
        word += new and sign != " "
        if sign != " " and not new and spans[-1][2] == at and spans[-1][2] - spans[-1][1] < 2:
            spans[-1] = (word, spans[-1][1], at + 1)
        elif sign != " ":
            spans.append((word, at, at + 1))
    return np.array([*spans, (-1, 0, 0)])


def bound(head, *texts):
    rows = [(text,) for text in texts]
    return head.aligned(lambda given: [spans_of(text) for (text,) in given]).about(rows)


def entities(tags):
    """Return (type, first, last) of a row by seqeval's default rules, from names alone."""
    found, start = [], None
    for at, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
        new = tag[0] in "BS" or before[0] in "ESO" or before[2:] != tag[2:]
        if start is not None and (tag == "O" or new):
            found.append((before[2:], start, at - 1))
            start = None
        if tag != "O" and new:
            start = at
    return found


def logits_of(head, *rows):
    """Return logits float32 [rows, words, tags] whose best tags are these."""
    longest = max(map(len, rows))
    found = np.zeros((len(rows), longest, len(head.labels)), np.float32)
    for row, tags in enumerate(rows):
        for at, tag in enumerate(tags):
            found[row, at, head.labels.index(tag)] = 3
    return found


@pytest.mark.parametrize("scheme", HEADS)
def test_entities_and_their_f1_are_seqevals(scheme):
    head, generator = HEADS[scheme], np.random.default_rng(0)
    rows = [[*generator.choice(scheme, size)] for size in generator.integers(1, 12, 300)]
    others = [[tag if generator.random() < 0.7 else generator.choice(scheme) for tag in row] for row in rows]
    one, other = (head.decide(logits_of(head, *tags)) for tags in (rows, others))
    expected = [{*entities(row)} for row in rows], [{*entities(row)} for row in others]
    shared = sum(len(first & second) for first, second in zip(*expected, strict=True))
    f1 = 2 * shared / sum(map(len, expected[0] + expected[1]))
    assert METRICS["entity_f1"](one, other) == pytest.approx(f1)
    assert METRICS["entity_f1"](one, one) == 1
    assert f1_score(*entities_apart(one, other, 2), average="micro") == pytest.approx(f1)
    low, high = metric_ci95("entity_f1", one, other, seed=0)
    assert 0.02 < high - low < 0.12
    assert low < f1 < high


def test_seqeval_agrees():
    from seqeval import metrics

    generator = np.random.default_rng(1)
    rows, others = ([[*generator.choice(IOB2, 8)] for _ in range(200)] for _ in range(2))
    found = (HEAD.decide(logits_of(HEAD, *tags)) for tags in (rows, others))
    assert METRICS["entity_f1"](*found) == pytest.approx(metrics.f1_score(rows, others))


def test_planted_faults_fail_the_gate_and_the_same_predictions_pass():
    generator = np.random.default_rng(2)
    truth = HEAD.decide(logits_of(HEAD, *(["O", "B-PER", "I-PER", "O", "B-LOC"] for _ in range(200))))
    fp32 = np.where(generator.random((200, 1)) < 0.9, truth, 0)
    shifted, dead = np.roll(fp32, 1, axis=1), np.where(fp32 > 2, 0, fp32)

    def verdict(codes):
        both = (Predictions(truth, found, np.zeros((200, 5, 5), np.float32)) for found in (fp32, codes))
        return compare(*both, "entity_f1", max_drop=2).verdict

    assert [verdict(codes) for codes in (fp32, shifted, dead)] == [PASSES, FAILS, FAILS]
    assert HEAD.per_label(Predictions(truth, dead, truth))["LOC"]["recall"] == 0
    assert HEAD.agreement(Predictions(truth, dead, truth), Predictions(truth, fp32, truth))["per_label"]["PER"] == 1
    assert HEAD.change(fp32, fp32) == 0 < HEAD.change(fp32, shifted)


def test_a_word_has_the_tag_of_its_first_token_and_padding_counts_nothing():
    head = bound(HEAD, "Anna b. Ulm", "x")
    logits = logits_of(HEAD, ["I-LOC", "B-PER", "O", "I-PER", "O", "B-LOC", "O", "O"], ["O", "I-PER", "O"])
    assert spans_of("Anna b. Ulm")[:, 0].tolist() == [-1, 0, 0, 1, 2, 3, 3, -1]
    found = head.predict(np.array([[1, 2, 3], [0, 0, 0]]), logits)
    assert found.predicted.tolist() == [[1, 2, 3], [1, 0, 0]]  # a data word `b.` has two of the tokenizer's
    assert head.shown(found.predicted[0]) == "PER 1-2, LOC 3"
    (first, second) = head.answers(logits)
    assert [(one["label"], one["start"], one["end"], one["text"]) for one in first["entities"]] == [
        ("PER", 0, 6, "Anna b"),
        ("LOC", 8, 11, "Ulm"),
    ]
    assert second["entities"][0]["score"] == pytest.approx(np.exp(3) / (np.exp(3) + 4))
    assert json.loads(head.texts(logits)[0]) == first["entities"]
    assert head.margins(logits).tolist() == [3, 3]
    padded = np.pad(logits, ((0, 0), (0, 3), (0, 0)))
    assert head.answers(padded) == head.answers(logits)
    assert head.distance(padded, padded).rank == 0
    with pytest.raises(UsageError, match="top_k=2: a token classifier gives entities"):
        head.best(logits, 2)


def test_words_beyond_the_models_length_are_missed():
    text = "a b c d"
    head = HEAD.aligned(lambda given: [spans_of(text)[:3]]).about([(text,)])
    found = head.predict(np.array([[1, 1, 1, 1]]), logits_of(HEAD, ["O", "B-PER", "B-PER"]))
    assert found.predicted.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"w": ["a", "b"], "t": ["O"]}, "row 2 has 2 words and 1 tags. Write one tag for each word."),
        ({"w": ["a b"], "t": ["O"]}, "row 2, word 1: 'a b' is not one word. Write a word without white space"),
        ({"w": [], "t": []}, "row 2 has no words. Remove the row."),
        ({"w": 3, "t": ["O"]}, "row 2, column 'w': 3 is not a list of words. Write a JSON list"),
        (
            {"w": ["a"], "t": ["B-FOO"]},
            "row 2, word 1 has the tag 'B-FOO', which is not among the model's 5 tags: O, B-PER",
        ),
        ({"w": ["a"], "t": ["S-PER"]}, "The model's tags begin with B, I: convert the tags of the data."),
        (
            {"w": ["a", "b"], "t": ["O", "I-PER"]},
            "row 2, word 2 has the tag 'I-PER' after 'O', but in the model's scheme",
        ),
        ({"w": ["a"], "t": [7]}, "row 2, word 1 has the tag 7, which is not among"),
    ],
)
def test_bad_rows_are_named_with_what_to_do(tmp_path, row, message):
    rows = [{"w": ["a"], "t": ["O"]}, row]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError) as error:
        HEAD.read(load_rows(TASK, "train", data=str(tmp_path)))
    assert str(error.value).startswith(f"{tmp_path / 'train.jsonl'}: ")
    assert message in str(error.value)


def test_words_are_read_from_lists_texts_and_conll(tmp_path):
    made = {
        "json": '[{"words": ["Anna", "left"], "tags": ["B-PER", "O"]}, {"words": ["Ulm"], "tags": [3]}]',
        "csv": 'words,tags\nAnna left,B-PER O\n"[""Ulm""]",B-LOC\n',
        "conll": "-DOCSTART- -X- O\n\nAnna NN B-PER\nleft VB O\n\nUlm NN B-LOC\n",
    }
    task = Task(name="t", text_columns=("words",), label_column="tags", head="tokens")
    for suffix, text in made.items():
        (tmp_path / suffix).mkdir()
        (tmp_path / suffix / f"train.{suffix}").write_text(text)
        rows = load_rows(task, "train", data=str(tmp_path / suffix))
        assert rows.texts == [("Anna left",), ("Ulm",)]
        assert HEAD.read(rows).tolist() == [[1, 0], [3, 0]]
    (tmp_path / "conll" / "train.conll").write_text("Anna B-PER\nleft\n")
    with pytest.raises(InputError, match=r"train.conll: line 2, 'left', is a word without a tag. Add its tag"):
        load_rows(task, "train", data=str(tmp_path / "conll"))


def test_outputs_that_are_no_tags_and_other_heads_are_refused():
    from toolchain.heads import find_head

    with pytest.raises(InputError, match=r"the model's output 'PER' is not a tag such as O, B-PER or I-PER"):
        head_of("O", "PER", name="tokens")
    with pytest.raises(InputError, match="O and at least one entity tag are needed"):
        head_of("B-PER", "I-PER", name="tokens")
    with pytest.raises(InputError, match=r"the task has the head sequence, but the checkpoint's config.json"):
        find_head(Task(name="t", text_columns=("w",), label_column="t", head="sequence"), IOB2, possible=("tokens",))
    named = head_of("LABEL_0", "LABEL_1", "LABEL_2", name="tokens", labels=("O", "B-X", "I-X"))
    assert (named.names, named.tags) == (["X"], ["O", "B-X", "I-X"])
    assert named.read(Rows("f", [("a b",)], [["B-X", "I-X"]])).tolist() == [[1, 2]]
