"""Amounts in a sentence or a table: a figure, megabytes, and a number with its noun."""


def figure(value: float) -> str:
    """Return a number above 0 without decimals from 10 on and with one below; `<0.1` where that would be 0.0."""
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def megabytes(count: int) -> str:
    """Return a number of bytes in MB (10^6 bytes), without its unit."""
    return figure(count / 1e6)


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, which gets an s unless the number is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
