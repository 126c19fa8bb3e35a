"""Stores as directories: what can be asked without a running service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ulogd_tw.flows.errors import NoStore
from ulogd_tw.flows.expressions import Expressions
from ulogd_tw.flows.plan import HOUR_MS, Reach
from ulogd_tw.flows.reading import Cut, Reader, relation_of
from ulogd_tw.flows.stores import INTERVAL_START, Store, in_order
from ulogd_tw.storing.parquet import directory


class Directories:
    """Some stores, of which only complete files are read."""

    waiting_too = False

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores: Sequence[Store] = in_order(stores)

    def reach(self, store: Store, reader: Reader) -> Reach | None:
        """From the oldest hour; of a roll-up up to the begin of the intervals that may not be complete."""
        hours = listed_hours(store)
        if not hours:
            return None
        return Reach(hours[0] * HOUR_MS, None if store.rollup is None else _complete(store, hours, reader))

    def cut(self, store: Store, begin: int | None, end: int | None) -> Cut:
        """The files that can have flows of a range, by their names."""
        return Cut(store, listed_files(store, begin, end))


def listed_hours(store: Store) -> list[int]:
    """The hours of a store since 1970. Raises `NoStore`."""
    try:
        return directory.hours(Path(store.directory))
    except OSError as error:
        raise NoStore(f"{store.directory}: {error.strerror}") from None


def listed_files(store: Store, begin: int | None, end: int | None) -> list[directory.StoredFile]:
    """The files that can have flows of a range in milliseconds. Raises `NoStore`."""
    try:
        return directory.files(Path(store.directory), _seconds(begin), _seconds(end))
    except OSError as error:
        raise NoStore(f"{store.directory}: {error.strerror}") from None


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _complete(store: Store, hours: list[int], reader: Reader) -> int:
    """The begin of the oldest interval of which rows may still come, in milliseconds.

    The newest interval in files may be incomplete, and with `lateness` those before it.
    """
    assert store.rollup is not None
    interval = max(store.rollup.interval, 1)
    for hour in reversed(hours):
        files = directory.files_of_hour(Path(store.directory), hour)
        if files and INTERVAL_START in store.keys:
            time = Expressions(store).time
            ((newest,),) = reader.rows(f"SELECT max({time}) FROM {relation_of(files, True)}")
            if newest is not None:
                return int(newest) - -(-store.rollup.lateness // interval) * interval
    return 0
