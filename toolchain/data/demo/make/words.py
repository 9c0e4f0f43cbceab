"""The word lists of the demo reviews, with the words that only validation may use."""

from __future__ import annotations

from typing import Final, NamedTuple


class Pool(NamedTuple):
    """Words that both splits use, and words that only validation uses."""

    shared: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def words(self, split: str) -> tuple[str, ...]:
        """Return the words that the split may use."""
        return self.shared if split == "train" else self.shared + self.held_out


class Polar(NamedTuple):
    """Opinion words of one kind, such as adjectives: the unfavourable ones and the favourable ones."""

    negative: Pool
    positive: Pool


def pool(shared: str, held_out: str = "") -> Pool:
    """Return a pool from two comma-separated lists of words."""
    return Pool(_listed(shared), _listed(held_out))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


OPINIONS: Final[dict[str, Polar]] = {
    "adj": Polar(
        pool(
            "awful, bad, poor, terrible, dreadful, horrible, flimsy, disappointing, mediocre,"
            " shoddy, weak, clumsy, useless, annoying, dull, unreliable, sloppy, unpleasant,"
            " dismal, second-rate, faulty, lousy, frustrating, ugly",
            "underwhelming",
        ),
        pool(
            "great, good, excellent, superb, lovely, wonderful, solid, impressive, reliable,"
            " brilliant, fantastic, splendid, outstanding, charming, clever, sturdy, pleasant,"
            " delightful, first-rate, remarkable, perfect, decent, well-made, beautiful",
            "exquisite",
        ),
    ),
    "cmp": Polar(
        pool(
            "worse, clumsier, weaker, uglier, flimsier, less reliable, more annoying,"
            " less pleasant, sloppier, less impressive",
            "shoddier",
        ),
        pool(
            "better, nicer, sturdier, smarter, stronger, more reliable, less annoying,"
            " more pleasant, tidier, more impressive",
            "lovelier",
        ),
    ),
    "feel": Polar(
        pool(
            "disappointed, annoyed, let down, frustrated, upset, unhappy, cheated, fed up",
            "dismayed",
        ),
        pool(
            "delighted, pleased, impressed, happy, thrilled, relieved, charmed, won over",
            "overjoyed",
        ),
    ),
    "noun": Polar(
        pool("disaster, mistake, letdown, nuisance, mess, failure, headache, rip-off", "fiasco"),
        pool("joy, treat, bargain, triumph, delight, success, gem, pleasure", "masterpiece"),
    ),
    "do": Polar(
        pool(
            "fail, break, let us down, cause trouble, waste our time, get in the way, drive me mad, spoil the day",
            "ruin the mood",
        ),
        pool(
            "work, impress, deliver, save the day, make life easier, keep its promises, cheer me up, earn its keep",
            "shine",
        ),
    ),
}

ACTIONS: Final[dict[str, Polar]] = {
    "thing": Polar(
        pool("send it back, ask for a refund, throw it away, give it away, regret buying it"),
        pool("buy it again, keep it, recommend it, get a second one, give it as a present"),
    ),
    "place": Polar(
        pool("complain, ask for our money back, leave early, avoid it, regret going there"),
        pool("go back, recommend it, book it again, stay longer, take our friends there"),
    ),
    "service": Polar(
        pool("cancel it, complain, ask for a refund, avoid it, regret paying for it"),
        pool("sign up again, recommend it, keep using it, pay for it again, tell everyone"),
    ),
}

NEUTRAL: Final[dict[str, Pool]] = {
    "month": pool(
        "January, February, March, April, May, June, July, August, October, December",
        "September, November",
    ),
    "person": pool(
        "my aunt, my brother, my wife, my husband, a friend, a colleague, my neighbour,"
        " our daughter, my boss, the whole family",
        "my grandmother, our lodger",
    ),
    "rival": pool(
        "the last one, the one before, the previous one, the one my sister likes,"
        " the one in the advert, the one we had in mind, the famous one, the dearer one",
        "the one next door, the usual one",
    ),
    "number": pool("two, three, four, five, six, ten, twelve", "eight, fourteen"),
    "degree": pool("very, really, truly, quite, rather, pretty, remarkably", "downright"),
    "town": pool("Leeds, Dublin, Cork, Bristol, Oslo, Ghent, Turin", "Aberdeen, Utrecht"),
}

CLUTTER: Final[dict[str, Pool]] = {
    "thing": Pool(
        (
            "We bought it in {month} for {person}.",
            "I ordered two in {month}, one of them for {person}.",
            "It was a present from {person}.",
            "It arrived on a Tuesday in {month}, in a plain brown box.",
            "It is the {number} piece set from the shop in {town}.",
            "I have had it for {number} weeks now.",
            "There is a blue one and a grey one.",
        ),
        ("Ours came from {town} after {number} days.", "{person} picked the colour."),
    ),
    "place": Pool(
        (
            "We went there in {month} with {person}.",
            "It is a short walk from the station in {town}.",
            "There were {number} of us, on a Thursday.",
            "We were in {town} for {number} days.",
            "{person} had chosen it from a list.",
            "It was raining when we arrived.",
            "The building used to be a school.",
        ),
        ("We had driven over from {town}.", "{person} came along on the last day."),
    ),
    "service": Pool(
        (
            "I signed up in {month}, together with {person}.",
            "I have used it for {number} months now.",
            "{person} told me about it in {month}.",
            "The company has an office in {town}.",
            "I use it mostly on the train to {town}.",
            "There are {number} plans to choose from.",
            "We share one account between {number} people.",
        ),
        ("Someone in {town} showed it to me.", "{person} set it up on a Sunday."),
    ),
}
