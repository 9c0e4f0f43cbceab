"""The format of numbers in sentences and tables: a figure, megabytes, and a number with its noun."""


def figure(value: float) -> str:
    """Format a number that is not negative: `12` from 10 on, `1.2` below 10, and `<0.1` between 0 and 0.05."""
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def megabytes(count: int) -> str:
    """Format a number of bytes in MB (10^6 bytes), without the unit."""
    return figure(count / 1e6)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as `1 row` or `2 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
