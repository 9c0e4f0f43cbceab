"""Amounts in a sentence or a table: a figure, megabytes, and a number with its noun."""


def figure(value: float) -> str:
    """Return a number without decimals from 10 on, and with two digits that count below."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def megabytes(count: int) -> str:
    """Return a number of bytes in MB (10^6 bytes), without its unit."""
    return figure(count / 1e6)


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, which gets an s unless the number is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
