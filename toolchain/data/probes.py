"""Built-in sentences for steps that need input texts when the user gives no data."""

from toolchain.data.rows import Text

# Sentences of 1 to about 40 words.
PROBES = (
    "A quiet film that stays with you.",
    "The battery died after two days and nobody answered the phone.",
    "Not bad.",
    "I wanted to like it, and for the first half I did; then the plot gave up and so did I.",
    "ok",
    "The clerk was kind, the room was clean, and the view over the harbour made up for the stairs, "
    "the lift that never came, and a breakfast that could have been served warmer than it was.",
    "Three of four keys stuck on arrival.",
    "Would buy again? Yes, but only at half the price, and only in blue.",
)


def probe_texts(columns: int) -> list[Text]:
    """Return the built-in sentences as rows of `columns` texts: single sentences, or pairs of two different ones."""
    return [tuple(PROBES[(index + shift) % len(PROBES)] for shift in range(columns)) for index in range(len(PROBES))]


def long_text(columns: int, tokens: int) -> Text:
    """Return a row whose texts have more than `tokens` words each, so that truncation to `tokens` tokens cuts them."""
    words = " ".join(PROBES).split()
    return (" ".join((words * (tokens // len(words) + 1))[: tokens + len(words)]),) * columns
