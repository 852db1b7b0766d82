"""Words for people: counts with their nouns. Imports nothing."""


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
