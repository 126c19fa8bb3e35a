"""Taps on the running graph: copies of the rows that leave an instance, for somebody who looks at them as they pass.

A tap costs the stack little and never holds a row back. It has an allowance of rows and of time; rows beyond it, and
those that come while the reader is slow, are counted as skipped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.graph import Graph, Node
from ulogd_tw.core.plugin import Output
from ulogd_tw.core.resolve import Found, Provided, Sources
from ulogd_tw.match import Term
from ulogd_tw.operating.rows import row_lines

ROWS_A_SECOND = 1000
"""Rows shown in a second: more than somebody can read, and some hundredths of a second of work."""
SHARE = 0.04
"""The share of the time that one tap may take."""
BURST_S = 0.25
"""Rows and time that were not used are kept for so long."""
SLICE_ROWS = 4096
"""Rows looked at in one go: a millisecond or two of an expression."""
FOLLOW_S = 0.25
"""Seconds between two looks at the graph, which a reload replaces."""


class Hanging:
    """A further child of a node, which gets every batch that the node passes on; no row waits meanwhile.

    An output has no children: the rows that reach it are taken from every node above it.
    """

    def __init__(self, node: Node, take: Callable[[Batch], None]) -> None:
        self.receive = take
        self._places = node.parents if isinstance(node.plugin, Output) else [node]

    def hang(self) -> None:
        """Begin."""
        for node in self._places:
            node.children = [self, *node.children]  # type: ignore[list-item]  # a new list: one may be walked over

    def remove(self) -> None:
        """End."""
        for node in self._places:
            node.children = [child for child in node.children if child is not self]

    def hangs_at(self, node: Node) -> bool:
        """Whether it hangs at this node still, in all its places."""
        wanted = node.parents if isinstance(node.plugin, Output) else [node]
        hung = [place for place in wanted if any(child is self for child in place.children)]
        return hung == list(wanted) == list(self._places)


class Choice:
    """The rows of batches for which a term is true; the keys are found in each batch by name and by element."""

    MOST_SCHEMAS = 64

    def __init__(self, term: Term) -> None:
        self._term = term
        self._sources: Bounded[Schema, Sources] = Bounded(self.MOST_SCHEMAS)
        self.missing: set[str] = set()
        """Keys of the term that a batch did not have."""

    def rows(self, batch: Batch) -> Batch:
        """The chosen rows."""
        mask = self.mask(batch)
        return batch if mask.all() else batch.take(np.flatnonzero(mask))

    def mask(self, batch: Batch) -> np.ndarray:
        """True for the chosen rows."""
        return self._term.rows(self._find, batch)

    def _find(self, batch: Batch, name: str) -> Found | None:
        sources = self._sources.get(batch.schema)
        if sources is None:
            sources = self._sources[batch.schema] = self._sources_of(batch.schema)
        return sources.find(batch, name)

    def _sources_of(self, schema: Schema) -> Sources:
        made, provided = Sources(), Provided(schema.values())
        for name in self._term.keys():
            recipes = provided.recipes(name)
            made.add(name, recipes)
            if not recipes:
                self.missing.add(name)
        return made


class Allowance:
    """Rows and seconds of work for each second that passes; what is not used is kept for `BURST_S`."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._rows = ROWS_A_SECOND * BURST_S
        self._work = SHARE * BURST_S

    def room(self, now: float) -> int:
        """The rows that may be shown now; 0 where too much time was spent."""
        passed, self._since = max(now - self._since, 0.0), now
        self._rows = min(self._rows + passed * ROWS_A_SECOND, ROWS_A_SECOND * BURST_S)
        self._work = min(self._work + passed * SHARE, SHARE * BURST_S)
        return int(self._rows) if self._work > 0 else 0

    def spend(self, rows: int, seconds: float) -> None:
        """What was shown, and how long the work took."""
        self._rows -= rows
        self._work -= seconds


class LiveTap:
    """Follows one instance until `rows` rows were written, the instance is gone, or somebody ends it.

    `write` gets whole lines of JSON: rows, and notes about the tap, whose member `tap` says of which kind. `ended` is
    called once. The reader sets `paused` while it cannot take more.
    """

    def __init__(
        self, graph: Callable[[], Graph], ident: str, choice: Choice | None, rows: int | None,
        write: Callable[[bytes], None], ended: Callable[[], None], clock: Any,
        work: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.paused = False
        self.skipped = 0
        """Rows not looked at or not shown, since the last note."""
        self._graph, self._ident, self._choice, self._left = graph, ident, choice, rows
        self._write, self._ended, self._clock, self._work = write, ended, clock, work
        self._allowance = Allowance(clock.seconds())
        self._hanging: Hanging | None = None
        self._timer: Any = None
        self._told: set[str] = set()
        self._noted = clock.seconds()

    def begin(self) -> None:
        """Hang it into the graph."""
        self._follow()
        self._tick()

    def stop(self) -> None:
        """Take it out of the graph; nothing is written any more."""
        if self._hanging is not None:
            self._hanging.remove()
            self._hanging = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def receive(self, batch: Batch) -> None:
        """Take rows. A fault here must not harm the stack."""
        try:
            self._receive(batch)
        except Exception as error:
            self._end(f"a fault of the tap itself: {type(error).__name__}: {error}")

    def _receive(self, batch: Batch) -> None:
        """A slice after the other, for as long as the allowance holds."""
        for start in range(0, batch.n, SLICE_ROWS):
            room = 0 if self.paused else self._allowance.room(self._clock.seconds())
            if not room:
                self.skipped += batch.n - start
                return
            self._look_at(batch.take(slice(start, start + SLICE_ROWS)), room)
            if self._left == 0:
                self._end()
                return

    def _look_at(self, batch: Batch, room: int) -> None:
        """Show the chosen rows of a slice, `room` at most."""
        began = self._work()
        chosen = batch if self._choice is None else self._choice.rows(batch)
        shown = chosen.take(slice(0, room if self._left is None else min(room, self._left)))
        if shown.n:
            self._write("".join(f"{line}\n" for line in row_lines(shown)).encode())
        self._allowance.spend(shown.n, self._work() - began)
        if self._left is not None:
            self._left -= shown.n
        if self._left != 0:
            self.skipped += chosen.n - shown.n

    def _tick(self) -> None:
        """Notes that are due, and a look at the graph."""
        self._timer = self._clock.callLater(FOLLOW_S, self._tick)
        now = self._clock.seconds()
        if self.skipped and not self.paused and now - self._noted >= 1:
            self._note_skipped(now)
        missing = self._choice.missing - self._told if self._choice is not None else set()
        if missing:
            self._told |= missing
            names = ", ".join(sorted(missing))
            self._note("missing", text=f"some rows of {self._ident} lack {names}; an input gives what a plugin wants")
        self._follow()

    def _follow(self) -> None:
        """Hang where the instance is now: a reload replaces the graph."""
        node = next((node for node in self._graph().nodes if node.ident == self._ident), None)
        if node is None:
            self._end(f"there is no {self._ident} any more")
            return
        if self._hanging is not None and self._hanging.hangs_at(node):
            return
        if self._hanging is not None:
            self._hanging.remove()
            self._note("reloaded", text=f"{self._ident} was replaced by a reload; rows may have passed unseen")
        self._hanging = Hanging(node, self.receive)
        self._hanging.hang()

    def _note_skipped(self, now: float) -> None:
        self._note("skipped", rows=self.skipped)
        self.skipped, self._noted = 0, now

    def _note(self, kind: str, **more: Any) -> None:
        self._write(json.dumps({"tap": kind} | more).encode() + b"\n")

    def _end(self, text: str = "") -> None:
        """The last notes, and the end."""
        self.stop()
        if self.skipped:
            self._note_skipped(self._clock.seconds())
        if text:
            self._note("ended", text=text)
        self._ended()
