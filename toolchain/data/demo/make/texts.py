"""Generates the demo's reviews, each with its sentiment as the label."""

from __future__ import annotations

import random
import re
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from toolchain.data.demo.make import domains, templates, words

NEGATIVE: Final = 0
POSITIVE: Final = 1
# How many neutral sentences a review gets; each entry is equally likely. Half of the reviews get none, and one in
# eight gets three, so that lengths differ as they do in real reviews.
CLUTTER_COUNTS: Final = (0, 0, 0, 0, 1, 1, 1, 3)
# The fraction of reviews with one misspelt word.
TYPO_SHARE: Final = 0.06
# The least number of letters in a word that is misspelt. If two letters of a shorter word are swapped, it may become
# another word, or unreadable.
SHORTEST_MISTYPED_WORD: Final = 5
# Draws without a new row after which the templates of a split count as exhausted.
ATTEMPTS_PER_ROW: Final = 200

_CLAUSE: Final = re.compile(r"\{([+-])(remark|verdict)\}")
_SLOT: Final = re.compile(r"\{([+-]?)(\w+)\}")
_OTHER_SIGNS: Final = str.maketrans("+-", "-+")
_ARTICLE: Final = re.compile(r"\b([Aa]) (?=[aeio]|u(?!s))")
_SENTENCE_START: Final = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


class Row(NamedTuple):
    """A review: its text, its label (0 negative, 1 positive), and the template that it was made from."""

    sentence: str
    label: int
    template: str


def generate(split: str, n: int, seed: int) -> list[Row]:
    """Return n different rows of the split ("train" or "validation").

    The same seed gives the same rows, and a smaller n gives the first n of them.
    Raises ValueError if the templates do not give n different sentences.
    """
    rng = random.Random(f"{split} {seed}")
    rows: dict[str, Row] = {}
    for _ in range(n):
        row = _new_row(rng, split, rows)
        rows[row.sentence] = row
    return list(rows.values())


def tsv(rows: list[Row]) -> str:
    """Return the rows as the text of a tab-separated file with a header."""
    lines = [f"{row.sentence}\t{row.label}" for row in rows]
    return "\n".join(["sentence\tlabel", *lines]) + "\n"


def _new_row(rng: random.Random, split: str, seen: Container[str]) -> Row:
    for _ in range(ATTEMPTS_PER_ROW):
        row = _row(rng, split, rng.choice((NEGATIVE, POSITIVE)))
        if row.sentence not in seen:
            return row
    raise ValueError(f"the {split} templates give no more new sentences. Ask for fewer rows.")


def _row(rng: random.Random, split: str, label: int) -> Row:
    filler = _Filler(rng, split, label)
    template = filler.template()
    parts = [template]
    for clutter in filler.clutter(rng.choice(CLUTTER_COUNTS)):
        parts.insert(rng.randrange(len(parts) + 1), clutter)
    sentence = _polished(filler.fill(" ".join(parts)))
    if rng.random() < TYPO_SHARE:
        sentence = _mistyped(rng, sentence)
    return Row(sentence, label, template)


class _Filler:
    """Fills the slots of one review with words about one subject, and draws no word twice."""

    def __init__(self, rng: random.Random, split: str, label: int) -> None:
        self._rng = rng
        self._split = split
        self._label = label
        held_out = domains.HELD_OUT if split == "validation" else ()
        self._domain = rng.choice(domains.SHARED + held_out)
        self._used: set[str] = set()

    def template(self) -> str:
        """Draw a template of the split and return it with its clauses filled in. The slots for words remain."""
        groups = templates.TRAIN if self._split == "train" else templates.VALIDATION
        (group,) = self._rng.choices(list(templates.SHARES), list(templates.SHARES.values()))
        return _CLAUSE.sub(self._clause, self._rng.choice(groups[group]))

    def fill(self, template: str) -> str:
        """Return the template with a word in every slot."""
        return _SLOT.sub(self._word, template)

    def clutter(self, count: int) -> list[str]:
        """Return `count` templates of neutral sentences, which say nothing about quality."""
        return self._rng.sample(words.CLUTTER[self._domain.kind].words(self._split), count)

    def _clause(self, slot: re.Match[str]) -> str:
        sign, name = slot.groups()
        direct, negated = templates.CLAUSES[name]
        pool = negated if self._rng.random() < templates.NEGATED_SHARE else direct
        clause = self._fresh(pool.words(self._split))
        return clause if sign == "+" else clause.translate(_OTHER_SIGNS)

    def _word(self, slot: re.Match[str]) -> str:
        sign, name = slot.groups()
        label = 1 - self._label if sign == "-" else self._label
        return self._fresh(self._choices(name, label))

    def _fresh(self, choices: tuple[str, ...]) -> str:
        drawn = self._rng.choice([choice for choice in choices if choice not in self._used])
        self._used.update(self._excluded_by(drawn))
        return drawn

    def _choices(self, slot: str, label: int) -> tuple[str, ...]:
        if slot == "fact":
            return tuple(fact[label] for fact in self._domain.facts)
        if slot == "name":
            return self._domain.names
        if slot == "aspect":
            return self._domain.aspects
        if slot in words.NEUTRAL:
            return words.NEUTRAL[slot].words(self._split)
        opinions = words.ACTIONS[self._domain.kind] if slot == "action" else words.OPINIONS[slot]
        return opinions[label].words(self._split)

    def _excluded_by(self, word: str) -> Iterator[str]:
        """Yield the texts that the review must not use again: `word` itself and, for a fact, the opposite fact."""
        yield word
        for fact in self._domain.facts:
            if word in fact:
                yield from fact


def _polished(sentence: str) -> str:
    """Return the review with "an" before vowels and a capital letter at the start of each sentence."""
    sentence = _ARTICLE.sub(r"\1n ", sentence)
    return _SENTENCE_START.sub(lambda start: start[0].upper(), sentence)


def _mistyped(rng: random.Random, sentence: str) -> str:
    """Return the sentence with a typing error: two neighbouring letters inside one longer word are swapped."""
    tokens = sentence.split(" ")
    longer = [place for place, token in enumerate(tokens) if token.isalpha() and len(token) >= SHORTEST_MISTYPED_WORD]
    if longer:
        place = rng.choice(longer)
        tokens[place] = _swapped(tokens[place], rng.randrange(1, len(tokens[place]) - 2))
    return " ".join(tokens)


def _swapped(word: str, at: int) -> str:
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
