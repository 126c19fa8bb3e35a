"""The labels behind codes of networks and ports: texts, or other numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulogd_tw.core.columns import Coded, Column

_FEW = 256
"""Up to this number, a batch carries all texts, used or not."""


class Texts:
    """A text for each code; code 0 has the empty text, meaning none."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        different = {b"": 0}
        self._of = np.array([different.setdefault(text, len(different)) for text in (b"", *texts[1:])], np.int32)
        self._texts = tuple(different)

    def column(self, codes: np.ndarray) -> tuple[Column, np.ndarray | None]:
        """The column of these codes, and a mask of the rows without a text."""
        chosen = self._of[codes]
        missing = chosen == 0
        if len(self._texts) <= _FEW:
            column = Coded(chosen, self._texts)
        else:
            there, chosen = self._used(chosen)
            column = Coded(chosen, [self._texts[text] for text in there.tolist()])
        return column, missing if missing.any() else None

    def _used(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The different numbers, and the place of each row's number among them."""
        if 16 * len(chosen) < len(self._texts):
            there, places = np.unique(chosen, return_inverse=True)
            return there, places.astype(np.int32)
        flags = np.zeros(len(self._texts), bool)
        flags[chosen] = True
        there = np.flatnonzero(flags)
        places = np.empty(len(self._texts), np.int32)
        places[there] = np.arange(len(there), dtype=np.int32)
        return there, places[chosen]


class Numbers:
    """A number for each code; 0 is none."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._of = np.array(numbers, np.uint32)

    def column(self, codes: np.ndarray) -> tuple[Column, np.ndarray | None]:
        """As for `Texts`."""
        chosen = self._of[codes]
        missing = chosen == 0
        return chosen, missing if missing.any() else None


Labels = Texts | Numbers
