"""The record of a store's coverage: from when to when its service ran, and what was lost then.

It is the file `coverage` in the directory of the store: a line of JSON for each entry, times in ms since 1970:

    {"begin": T, "run": ID}       a process begins, or goes on after a reload
    {"until": T}                  all rows that arrived before T are in files
    {"until": T, "counts": {}}    the same, and the totals of this process by reason, where one has changed
    {"end": T}                    a stop in order
    {"span": [A, B]}              the service ran from A to B (in place of older lines)
    {"lost": [A, B, reason, n]}   n rows, messages or events were lost between A and B (likewise)
    {"forgotten": T}              files of before T were deleted

A killed process writes no end: its last `until` stands. Lines are not synced one by one: where a power failure takes
the last of them, the store claims less than it has.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ulogd_tw.core import durable

NAME = "coverage"
RUN = uuid.uuid4().hex[:12]
"""This process."""
UNTIMED = ("lost.restart", "lost.unsaved")
"""Ends of the reasons of losses that came about before the process began."""
MISSING = ("lost.restart", "lost.sequence")
"""Ends of the reasons whose totals go down where records were only late."""
NEAR_MS = 60_000
"""Losses for one reason with no more than this between them are one entry after compaction."""
MOST_LINES = 4096
"""Lines added to the file until it is made compact: some hours at a flush every 5 s."""
MOST_LOSSES = 10_000
"""Maximum number of losses in a compact file; beyond it those further apart are joined too."""
NO_SERVICE = "the service did not run"
BEFORE = "nothing is kept of that time"
NOT_YET = "rows of that time were not yet in a file"


class Loss(NamedTuple):
    """`rows` rows, messages or events that were lost for a `reason` between two times (ms)."""

    since: int
    until: int
    reason: str
    rows: int


class Gap(NamedTuple):
    """A time (ms) of which records may be missing, and why."""

    since: int
    until: int
    reason: str


@dataclass
class Coverage:
    """Spans of time with a service, and the losses in them."""

    spans: list[list[int]] = field(default_factory=list)
    """[since, until] each, in order."""
    losses: list[Loss] = field(default_factory=list)
    forgotten: int = 0
    """Rows of before this time were deleted."""
    run: str = ""
    """The last process."""
    counts: dict[str, int] = field(default_factory=dict)
    """What the last process has counted, by reason."""
    ended: bool = False
    """Whether the last process stopped in order, or has not begun yet."""
    _resumed: int = 0
    """End of the span before the last process, or its beginning where there is none."""

    @classmethod
    def read(cls, directory: Path | str) -> Coverage:
        """What the file says. Nothing is covered without one. Raises OSError."""
        try:
            text = (Path(directory) / NAME).read_bytes()
        except FileNotFoundError:
            return cls()
        return cls.of(text.split(b"\n"))

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Coverage:
        """What lines say; those that cannot be read say nothing."""
        found = cls()
        for line in lines:
            try:
                found.add(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return found

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take an entry into account. Raises TypeError, ValueError or KeyError for what is none."""
        if "begin" in entry:
            self._begin(int(entry["begin"]), str(entry["run"]), bool(entry.get("continues")))
        elif "until" in entry or "end" in entry:
            self.ended = "end" in entry
            self._until(int(entry.get("until", entry.get("end"))), dict(entry.get("counts", {})))
        elif "span" in entry:
            since, until = entry["span"]
            self._span(int(since), int(until))
        elif "lost" in entry:
            since, until, reason, rows = entry["lost"]
            self.losses.append(Loss(int(since), int(until), str(reason), int(rows)))
        elif "forgotten" in entry:
            self.forgotten = max(self.forgotten, int(entry["forgotten"]))
        elif "state" in entry:
            run, counts, resumed, ended = entry["state"]
            self.run, self.counts, self._resumed, self.ended = str(run), dict(counts), int(resumed), bool(ended)

    def gaps(self, since: int, until: int) -> list[Gap]:
        """The times between two, the last included, of which records may be missing; in order."""
        found = [Gap(max(a, since), min(b, until), why) for a, b, why in self._uncovered() if a <= until and b >= since]
        found += [
            Gap(max(loss.since, since), min(loss.until, until), f"{loss.rows} lost: {loss.reason}")
            for loss in near(self.losses)
            if loss.since <= until and loss.until >= since and loss.rows > 0
        ]
        return sorted(found)

    @property
    def until(self) -> int:
        """End of the last span; 0 if there is none."""
        return self.spans[-1][1] if self.spans else 0

    def lines(self) -> Iterator[bytes]:
        """The same as a compact file."""
        entries: list[dict[str, Any]] = [{"forgotten": self.forgotten}] if self.forgotten else []
        entries += [{"span": span} for span in self.spans if span[1] >= self.forgotten]
        kept = [loss for loss in self.losses if loss.until >= self.forgotten]
        entries += [{"lost": list(loss)} for loss in _fewer(kept)]
        entries.append({"state": [self.run, self.counts, self._resumed, self.ended]})
        for entry in entries:
            yield json.dumps(entry, separators=(",", ":")).encode() + b"\n"

    def _uncovered(self) -> Iterator[tuple[int, int, str]]:
        """From the beginning of time to its end."""
        before, why = -1, BEFORE
        for since, until in self.spans:
            if until < self.forgotten:
                continue
            since = max(since, self.forgotten)
            if since > before + 1:
                yield before + 1, since - 1, why
            before, why = max(before, until), NO_SERVICE
        yield before + 1, 1 << 62, NOT_YET if self.spans else BEFORE

    def _begin(self, now: int, run: str, continues: bool) -> None:
        self._resumed = self.until or now
        if run != self.run:
            self.run, self.counts = run, {}
        elif self.spans:
            return  # a reload: what was lost in it is counted
        if not (continues and self.ended and self.spans):
            self._span(now, now)
        self.ended = False

    def _span(self, since: int, until: int) -> None:
        if self.spans and since <= self.until + 1:
            self.spans[-1][1] = max(until, self.until)
        else:
            self.spans.append([since, until])

    def _until(self, now: int, counts: dict[str, int]) -> None:
        last = self.until
        for reason, number in counts.items():
            since = min(self._resumed, last) if reason.endswith(UNTIMED) else last
            new = int(number) - self.counts.get(reason, 0)
            if new < 0 and not reason.endswith(MISSING):
                new = int(number)  # of an instance made anew by a reload
            if new:
                self.losses.append(Loss(min(since, now), now, reason, new))
            self.counts[reason] = int(number)
        if self.spans:
            self.spans[-1][1] = max(last, now)


def near(losses: Iterable[Loss], apart: int = NEAR_MS) -> list[Loss]:
    """The same losses, with those for one reason joined that are near each other. What came late after all, as a
    negative number, is taken off the losses before it."""
    found: list[Loss] = []
    open_: dict[str, int] = {}
    for loss in losses:
        at = open_.get(loss.reason)
        if at is not None and (loss.rows < 0 or loss.since <= found[at].until + apart):
            before = found[at]
            until = before.until if loss.rows < 0 else max(before.until, loss.until)
            found[at] = Loss(min(before.since, loss.since), until, loss.reason, before.rows + loss.rows)
        elif loss.rows > 0:
            open_[loss.reason] = len(found)
            found.append(loss)
    return [loss for loss in found if loss.rows > 0]


def _fewer(losses: list[Loss]) -> list[Loss]:
    """At most `MOST_LOSSES`, joined as far apart as this takes."""
    apart = NEAR_MS
    found = near(losses, apart)
    while len(found) > MOST_LOSSES:
        apart *= 4
        found = near(found, apart)
    return found


class CoverageRecord:
    """The file as its one writer sees it. Every method may raise OSError.

    `counts` are the totals of this process by reason, such as ``ct1 lost.kernel``; differences are losses.
    """

    def __init__(self, directory: Path | str, run: str = RUN, mode: int = 0o640) -> None:
        self._path = Path(directory) / NAME
        self._run, self._mode = run, mode
        self._lines = 0
        self._torn = False
        """Whether a part of a line is at the end of the file."""
        self.coverage = Coverage()

    def begin(self, now: int, continues: bool = False) -> None:
        """The service begins to receive.

        It `continues` where the kernel has kept all that came since the former process, which stopped in order.
        """
        self.coverage = Coverage.read(self._path.parent)
        entry: dict[str, Any] = {"begin": now, "run": self._run}
        self.coverage.add(entry | {"continues": True} if continues else entry)
        self.compact()

    def flushed(self, until: int, counts: Mapping[str, int]) -> None:
        """All rows that arrived before `until` are in files: a write, or nothing to write, is over."""
        self._flushed("until", until, counts)

    def end(self, until: int, counts: Mapping[str, int]) -> None:
        """The service stops; rows that arrived after `until` are in no file."""
        self._flushed("end", until, counts)
        self.compact()

    def forget(self, before: int) -> None:
        """Files with rows of before this time were deleted."""
        if before > self.coverage.forgotten:
            self._append({"forgotten": before})

    def compact(self) -> None:
        """Write the file anew, as small as it can be."""
        durable.write(self._path, lambda file: file.writelines(self.coverage.lines()), mode=self._mode)
        self.coverage = Coverage.of(self.coverage.lines())
        self._lines = 0

    def _flushed(self, word: str, until: int, counts: Mapping[str, int]) -> None:
        entry: dict[str, Any] = {word: until}
        changed = {reason: n for reason, n in counts.items() if n != self.coverage.counts.get(reason, 0)}
        self._append(entry | {"counts": changed} if changed else entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if self._torn:
            line = b"\n" + line  # what is there of the last line nobody can read
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, self._mode)
        try:
            self._torn = os.write(fd, line) < len(line)
        finally:
            os.close(fd)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.coverage.add(entry)
        self._lines += 1
        if self._lines >= MOST_LINES:
            self.compact()
