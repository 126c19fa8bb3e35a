"""Who had an address, in the process that reads stores: answers, and what makes later ones faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulogd_tw.flows.nat_answers import ask
from ulogd_tw.flows.nat_rows import NatRow, Question
from ulogd_tw.flows.nat_store import NatStore

LEARN_S = 5.0
"""So long files are learnt after an answer, unless the next question comes."""
_SLICE_S = 0.05


@dataclass(frozen=True)
class NatRequest:
    """A question to stores, by name their directories, with the rows that are in no file yet."""

    question: Question
    places: Mapping[str, str]
    rows: tuple[NatRow, ...]
    moments = ()

    @property
    def directories(self) -> tuple[str, ...]:
        """What the process has to read."""
        return tuple(self.places.values())


class NatFiles:
    """The files of the stores between questions; `run` gives all rows of a statement."""

    def __init__(self, run: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._store = NatStore(run)
        self._places: list[Path] = []

    def answer(self, request: NatRequest) -> dict[str, Any]:
        """The answer, as JSON has it. Raises OSError, and what `run` raises."""
        places = {name: Path(place) for name, place in request.places.items()}
        self._places = list(places.values())
        now = int(time.time() * 1000)
        return ask(self._store, places, request.question, now, request.rows, live=True).as_dict()

    def learn(self, asked: Callable[[], bool]) -> None:
        """Learn files of the last question until the next one is asked. Files that go meanwhile are left for later."""
        until = time.monotonic() + LEARN_S
        for place in self._places:
            try:
                while not self._store.learn(self._store.listing.files(place), _SLICE_S):
                    if asked() or time.monotonic() > until:
                        return
            except Exception:  # merged meanwhile, or not readable, which the next question says
                continue
        self._places = []
