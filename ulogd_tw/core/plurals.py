"""Numbers with their nouns, for messages: "1 record", "2 records"."""

from __future__ import annotations


def plural(n: int, one: str, many: str = "") -> str:
    """The number and its noun. `many` is the plural, where it is not `one` with an s.

    >>> plural(1, "record was", "records were")
    '1 record was'
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
