"""The head for token classification, such as named entities. Answers are entities with their positions in the text.

The model gives logits for each token. A word has the tag of its first token, as in transformers' token-classification
pipeline with `aggregation_strategy="first"`. In labelled data, the words are those that a row lists; in other texts,
they are those that the tokenizer finds. Tags of the schemes IOB2 and BIOES are read as seqeval reads them: a word
begins an entity if its tag says so, if the tag before it ends an entity, or if the tag before it has another type.

Predictions are entities encoded as integers, int64 [rows, words]: 0 for a word outside all entities, 2 t - 1 for the
first word of an entity of type t, and 2 t for its other words. Types count from 1. Rows are padded with zeros.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits, RowShape
from toolchain.data.labels import check_labels, order_of
from toolchain.data.metrics import Values, entity_lengths, row_counts
from toolchain.data.rows import Rows, Text
from toolchain.errors import InputError, UsageError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.heads.scores import softmax
from toolchain.records.prediction import Answer, Entity, Prediction
from toolchain.records.result import AgreementFigures, LabelFigures
from toolchain.records.serving import Response

# A tag: O for a word outside all entities, or a prefix and an entity type. L and U are other names of E and S.
TAG = re.compile(r"O|([BIESLU])-(.+)")

# Prefixes of tags for the first word of an entity, and for its last word. S and U are for entities of one word.
BEGINS, ENDS = "BSU", "ESLU"

# The tokens of a text, int64 [tokens, 3]: the index of the token's word (-1 for a special token), and the start and end
# of the token in the text, in characters.
Spans = NDArray[np.int64]

# A function that returns the tokens of each text.
Align = Callable[[Sequence[Text]], list[Spans]]


@dataclass(frozen=True)
class Tokens(Head):
    """The head of a model that gives a tag for each word.

    `align` finds the tokens of texts; `aligned` sets it. `rows` are the texts that logits belong to; `about` sets them.
    """

    align: Align | None = None
    rows: Sequence[Text] | None = None

    what = "a token classifier"
    metrics = ("entity_f1",)
    defaults = metrics
    made: ClassVar[dict[str, str]] = {"ENTITIES": "entities"}
    pipeline = "token-classification"
    join = " "
    raw = None

    def aligned(self, align: Align) -> Self:
        """Return a head that uses `align` to find the tokens of texts."""
        return replace(self, align=align)

    def about(self, texts: Sequence[Text]) -> Self:
        """Return a head that interprets the logits of these texts."""
        return replace(self, rows=texts)

    @property
    def row(self) -> RowShape:
        """The shape of the logits of one row: for each token, one number per tag. None means the number of tokens."""
        return (None, len(self.labels))

    @property
    def outputs(self) -> dict[str, int | None]:
        """The output tensor of a served model: the entities, as text."""
        return {"ENTITIES": None}

    def output(self, name: str, logits: Logits) -> list[str] | Logits:
        """Return the output tensor of a served model: the entities of each row as JSON text."""
        return self.texts(logits)

    @property
    def gives(self) -> str:
        """What the model gives for each row, as a phrase for a model card: entities and their types."""
        return f"the entities {', '.join(self.names)}"

    @property
    def tags(self) -> list[str]:
        """The tag of each output: its name or, if the outputs have generic names such as LABEL_0, the task's label."""
        if not self.task.labels:
            return list(self.labels)
        named = dict(zip(order_of(self.task, list(self.labels)), self.task.labels, strict=True))
        return [named[output] for output in range(len(self.labels))]

    @property
    def names(self) -> list[str]:
        """The types of entities, in the order in which they first appear in the tags."""
        found = (TAG.fullmatch(tag) for tag in self.tags)
        return list(dict.fromkeys(match[2] for match in found if match and match[2]))

    def check(self) -> None:
        """Refuse a model whose outputs are not tags of IOB2 or BIOES, and a task of pairs.

        Raises:
            InputError: the model or the task does not fit; see also `check_labels`.
        """
        check_labels(self.task, list(self.labels))
        tags = self.tags
        if foreign := [tag for tag in tags if not TAG.fullmatch(tag)]:
            raise InputError(
                f"--task {self.task.name}: the model's output {foreign[0]!r} is not a tag such as O, B-PER or I-PER. "
                "Write the tags, in the order of the outputs, to `labels` of the task or to id2label of config.json."
            )
        if "O" not in tags or not self.names:
            raise InputError(
                f"--task {self.task.name}: the model's tags are {', '.join(tags)}. "
                "O and at least one entity tag are needed. Give a checkpoint with tags of IOB2 or BIOES."
            )
        if len(self.task.text_columns) != 1:
            raise InputError(
                f"--task {self.task.name}: this is {self.what}, which takes one column of words. Name one text column."
            )

    def read(self, rows: Rows) -> Values:
        """Return the entities of rows of data, int64 [rows, words]. Tags in the data are names, or indices of tags.

        Raises:
            InputError: the model lacks a tag, or the data have another scheme than the model.
        """
        known = {tag: at for at, tag in enumerate(self.tags)}
        found = [
            [_index(known, rows, row, word, tag) for word, tag in enumerate(rows.labels[row])]
            for row in range(len(rows))
        ]
        self._check_scheme(rows, found)
        return self._entities(_padded(found, known["O"]))

    def _check_scheme(self, rows: Rows, found: list[list[int]]) -> None:
        """Refuse an entity that does not begin with a B tag. The data then have another scheme, such as IOB1."""
        tags = self.tags
        for row, indices in enumerate(found):
            before = "O"
            for word, tag in enumerate(map(tags.__getitem__, indices)):
                if tag[0] in "IEL" and (before[0] not in "BI" or before[2:] != tag[2:]) and f"B-{tag[2:]}" in tags:
                    raise InputError(
                        f"{rows.source}: row {rows.number(row)}, word {word + 1} has the tag {tag!r} after {before!r}, "
                        f"but in the model's scheme an entity begins with 'B-{tag[2:]}'. "
                        "Convert the tags to that scheme."
                    )
                before = tag

    def _entities(self, tags: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the entities (see the module) of tags, which are indices of outputs. Both are int64 [rows, words]."""
        names = {name: at for at, name in enumerate(self.names, 1)}
        types = np.array([names.get(tag[2:], 0) for tag in self.tags])[tags]
        begins, ends = (np.array([tag[0] in prefixes for tag in self.tags])[tags] for prefixes in (BEGINS, ENDS))
        before = np.pad(types, ((0, 0), (1, 0)))[:, :-1]
        ended = np.pad(ends, ((0, 0), (1, 0)))[:, :-1]
        begun = begins | ended | (before != types)
        return np.where(types > 0, 2 * types - begun, 0).astype(np.int64)

    def decide(self, logits: Logits) -> Values:
        """Return the entities that the tags would form if each token were a word, int64 [rows, tokens].

        These entities need no texts, and show which predictions the errors of a graph change.
        """
        return self._entities(np.where(logits.any(axis=-1), logits.argmax(axis=-1), self.tags.index("O")))

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predicted entities, both int64 [rows, words]. A truncated word has no entity."""
        outside = self.tags.index("O")
        tags = np.full(references.shape, outside)
        for row, (text, spans) in enumerate(self._aligned()):
            starts = np.cumsum([0, *(len(word) + 1 for word in text.split(" "))])[:-1]
            real = np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 2] > spans[:, 1]))
            # The last character of a token determines its word: a token may begin with the space before its word, but
            # never ends with the space after it.
            words, first = np.unique(np.searchsorted(starts, spans[real, 2] - 1, side="right") - 1, return_index=True)
            tags[row, words] = logits[row, real[first]].argmax(axis=-1)
        return Predictions(references, self._entities(tags), logits)

    def _aligned(self) -> list[tuple[str, Spans]]:
        """Return the text of each row and the spans of its tokens."""
        assert self.rows is not None, "the head has no texts; call about() first"
        assert self.align is not None, "the head has no tokenizer; call aligned() first"
        return [(text, spans) for (text, *_), spans in zip(self.rows, self.align(self.rows), strict=True)]

    def per_label(self, found: Predictions) -> dict[str, LabelFigures]:
        """Return for each type of entity its precision, recall and F1, and the number of rows with one in the data."""
        made: dict[str, LabelFigures] = {}
        for at, name in enumerate(self.names, 1):
            references, predicted = (
                np.where((codes + 1) // 2 == at, codes, 0) for codes in (found.references, found.predicted)
            )
            both, referred, given = row_counts(references, predicted).sum(axis=(0, 2)).tolist()
            made[name] = {
                "precision": both / max(given, 1),
                "recall": both / max(referred, 1),
                "f1": 2 * both / max(referred + given, 1),
                "rows": int(references.any(axis=1).sum()),
            }
        return made

    def agreement(self, found: Predictions, reference: Predictions) -> AgreementFigures:
        """Return for each type of entity the fraction of rows in which both predictions have the same entities."""
        types = [(codes + 1) // 2 for codes in (found.predicted, reference.predicted)]
        same = found.predicted == reference.predicted
        return {
            "per_label": {
                name: float((same | ((types[0] != at) & (types[1] != at))).all(axis=1).mean())
                for at, name in enumerate(self.names, 1)
            }
        }

    def shown(self, value: Any) -> str:
        """Return the entities of a row as text, with word numbers from 1, such as `PER 2-3`; a dash if it has none."""
        lengths = entity_lengths(value[None])[0]
        return (
            ", ".join(
                f"{self.names[(value[at] - 1) // 2]} {at + 1}" + (f"-{at + lengths[at]}" if lengths[at] > 1 else "")
                for at in np.flatnonzero(lengths).tolist()
            )
            or "-"
        )

    def divergence(self, reference: Logits, candidate: Logits) -> float:
        """Return the mean KL divergence of the tags' probabilities over all positions, in nats.

        At padded positions, where all logits are 0, it is 0.
        """
        from scipy.special import log_softmax

        p, q = (log_softmax(logits.astype(np.float64), axis=-1) for logits in (reference, candidate))
        return float((np.exp(p) * (p - q)).sum(axis=-1).mean())

    def margins(self, logits: Logits) -> NDArray[np.float32]:
        """Return the smallest difference between the two highest logits of a token in each row, float32 [rows]."""
        best = np.sort(logits, axis=-1)
        return np.asarray(np.where(logits.any(axis=-1), best[..., -1] - best[..., -2], np.inf).min(axis=1), np.float32)

    def change(self, reference: Values, candidate: Values) -> float:
        """Return how much the main metric would drop if the reference's entities were the true ones, 0 to 1."""
        return self._drop(reference, candidate)

    def entities(self, logits: Logits) -> list[list[Entity]]:
        """Return the entities of each text in their order. The score of an entity is the mean score of its words."""
        return [self._of_text(text, spans, row) for (text, spans), row in zip(self._aligned(), logits, strict=True)]

    def _of_text(self, text: str, spans: Spans, logits: NDArray[np.float32]) -> list[Entity]:
        real = np.flatnonzero(spans[:, 0] >= 0)
        words, first = np.unique(spans[real, 0], return_index=True)
        if not len(words):
            return []
        chosen = logits[real[first]]
        codes = self._entities(chosen.argmax(axis=-1)[None])
        last = np.append(real[first][1:], real[-1] + 1) - 1  # the tokens of a word are adjacent
        scores, lengths, found = self.scores(chosen).max(axis=-1), entity_lengths(codes)[0], []
        for at in np.flatnonzero(lengths).tolist():
            start, end = int(spans[real[first[at]], 1]), int(spans[last[at + lengths[at] - 1], 2])
            start += len(text[start:end]) - len(text[start:end].lstrip())
            name, score = self.names[(codes[0, at] - 1) // 2], float(scores[at : at + lengths[at]].mean())
            found.append(Entity(label=name, score=score, start=start, end=end, text=text[start:end]))
        return found

    def answers(self, logits: Logits) -> list[Answer]:
        """Return the entities of each text."""
        return [{"entities": found} for found in self.entities(logits)]

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Refuse to return the best labels, because the model gives entities.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"top_k={count}: {self.what} gives entities, not labels of a text. Leave top_k out.")

    def responses(self, logits: Logits) -> list[Response]:
        """Return the entities of each text."""
        return [{"entities": found} for found in self.entities(logits)]

    @property
    def example(self) -> Response:
        """An example of a response, with one entity."""
        return {"entities": [{"label": self.names[0], "score": 0.98, "start": 0, "end": 5, "text": "Leeds"}]}

    def texts(self, logits: Logits) -> list[str]:
        """Return the entities of each text as a JSON list."""
        return [json.dumps(found, ensure_ascii=False) for found in self.entities(logits)]

    def scores(self, logits: Logits) -> Logits:
        """Return the softmax over the tags, float32 [..., tags]."""
        return softmax(logits)


def _index(known: dict[str, int], rows: Rows, row: int, word: int, tag: Any) -> int:  # tag: a cell of any type
    """Return the index of the model's output for a tag of the data, which is a name or an index.

    Raises:
        InputError: the model lacks the tag.
    """
    if isinstance(tag, int) and rows.label_names and 0 <= tag < len(rows.label_names):
        tag = rows.label_names[tag]
    if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < len(known) and not rows.label_names:
        return tag
    if tag in known:
        return known[tag]
    prefixes = sorted({name[0] for name in known} - {"O"})
    other = isinstance(tag, str) and TAG.fullmatch(tag) and tag[0] not in prefixes and tag[0] != "O"
    advice = (
        f"The model's tags begin with {', '.join(prefixes)}: convert the tags of the data"
        if other
        else "Write one of these"
    )
    raise InputError(
        f"{rows.source}: row {rows.number(row)}, word {word + 1} has the tag {tag!r:.60}, which is not among the "
        f"model's {len(known)} tags: {', '.join(known)}. {advice}."
    )


def _padded(rows: list[list[int]], value: int) -> NDArray[np.int64]:
    """Return lists as one array, each padded with `value` to the length of the longest."""
    found = np.full((len(rows), max(map(len, rows), default=0)), value, np.int64)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
