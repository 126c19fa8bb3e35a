"""What may be missing from an answer, as the record of a store's coverage has it."""

from __future__ import annotations

from collections.abc import Iterator

from ulogd_tw.flows import times
from ulogd_tw.flows.stores import Store
from ulogd_tw.storing.coverage import NOT_YET, Coverage, Gap

MOST = 20
"""Maximum number of gaps that are told one by one."""


def notes(store: Store, begin: int | None, end: int | None, waiting: bool) -> list[str]:
    """A line for each time of a half-open range (ms) of which rows may be missing; none without a record.

    An open range begins and ends with the record. `waiting`: rows that are in no file yet are asked for too.
    """
    try:
        coverage = Coverage.read(store.directory)
    except OSError:
        return []
    if not coverage.spans:
        return []
    since = max(coverage.spans[0][0], coverage.forgotten) if begin is None else begin
    until = coverage.until if end is None else end - 1
    found = [gap for gap in coverage.gaps(since, until) if not (waiting and gap.reason == NOT_YET)]
    return list(_told(found))


def _told(gaps: list[Gap]) -> Iterator[str]:
    for gap in gaps[:MOST]:
        yield f"incomplete between {times.rfc3339(gap.since)} and {times.rfc3339(gap.until)}: {gap.reason}"
    if len(gaps) > MOST:
        yield f"incomplete at {len(gaps) - MOST} further times"
