"""Words for people: counts with their nouns, and intervals."""

import numpy as np


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def interval(low: float, high: float) -> str:
    """`[-2, 2.5]`, in the shortest texts of which float32 makes these numbers again: whoever copies them gives the same."""
    return "[{}, {}]".format(*(str(np.float32(side)).removesuffix(".0") for side in (low, high)))
