"""Words for hints: did you mean that one?"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name in `names` most similar to `name`, or None."""
    import difflib  # which few commands need

    lower = {n.lower(): n for n in names}
    found = difflib.get_close_matches(name.lower(), lower, 1, 0.75)
    return lower[found[0]] if found else None
