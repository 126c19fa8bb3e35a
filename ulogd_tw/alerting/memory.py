"""What rules remember over a restart: values seen before, and the sums of each hour of the last week. Both bounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulogd_tw.alerting.grouping import Sums, hashes, united

HOUR = 3600
WEEK = 168
"""Hours."""
LARGEST = 1000
"""Keys of each past hour that are remembered, those with the largest sums."""


class Seen:
    """Values seen before, as hashes with the time when each was seen last; `most` of them."""

    def __init__(self, most: int, learn: float) -> None:
        self._most, self._learn = most, learn
        self._hashes = np.zeros(0, np.uint64)
        self._last = np.zeros(0)
        self._since: float | None = None
        self.restored = False

    def __len__(self) -> int:
        return len(self._hashes)

    def new(self, sums: Sums, now: float) -> Sums:
        """The groups that were not there before; while it learns there are none. They are remembered from now on."""
        if self._since is None:
            self._since = now
        found, first = np.unique(hashes(sums.keys), return_index=True)
        place = np.searchsorted(self._hashes, found)
        inside = place < len(self._hashes)
        known = np.zeros(len(found), bool)
        known[inside] = self._hashes[place[inside]] == found[inside]
        self._last[place[known]] = now
        unknown = found[~known]
        if len(unknown):
            whole = np.concatenate([self._hashes, unknown])
            last = np.concatenate([self._last, np.full(len(unknown), now)])
            if len(whole) > self._most:
                kept = np.argpartition(-last, self._most - 1)[: self._most]
                whole, last = whole[kept], last[kept]
            order = np.argsort(whole)
            self._hashes, self._last = whole[order], last[order]
        learning = now - self._since < self._learn
        return sums.only(np.sort(first[~known])[:0] if learning else np.sort(first[~known]))

    def saved(self) -> dict[str, np.ndarray]:
        """Arrays for the state directory."""
        since = np.array([-1.0 if self._since is None else self._since])
        return {"hashes": self._hashes, "last": self._last.copy(), "since": since}

    def restore(self, arrays: Any) -> None:
        """Take what an earlier run has saved. Raises ValueError or KeyError for anything else."""
        found, last, since = arrays["hashes"], arrays["last"], float(arrays["since"][0])
        if found.dtype != np.uint64 or last.dtype != np.float64 or found.shape != last.shape or found.ndim != 1:
            raise ValueError("not values seen before")
        order = np.argsort(found)
        self._hashes, self._last, self._since = found[order], last[order], None if since < 0 else since


class Hours:
    """The sums of this hour and of the hours of a week by key."""

    def __init__(self) -> None:
        self._hours: dict[int, Sums] = {}
        self.restored = False

    def beyond(self, sums: Sums, start: int, factor: float, least: float) -> Sums:
        """Add an interval that begins at `start`; gives the keys whose hour is beyond `factor` times last week's."""
        hour, columns = start // HOUR, sums.keys.shape[1]
        if hour not in self._hours:
            self._turn(hour)
        now = self._hours[hour] = united([self._hours.get(hour, sums.only(np.zeros(0, np.int64))), sums], columns)
        before = self._hours.get(hour - WEEK)
        if before is None or not len(before) or not len(now):
            return now.only(np.zeros(0, np.int64))
        former = {key.tobytes(): value for key, value in zip(before.keys, before.values.tolist(), strict=True)}
        candidates = np.flatnonzero((now.values >= least) & (now.values > factor * before.values.min()))
        candidates = candidates[np.isin(hashes(now.keys[candidates]), hashes(before.keys))]  # a thousand at most
        rows = [
            row for row in candidates.tolist()
            if (was := former.get(now.keys[row].tobytes())) is not None and now.values[row] > factor * was
        ]  # fmt: skip
        return now.only(np.array(rows, np.int64))

    def _turn(self, hour: int) -> None:
        """A new hour: the past ones keep their largest keys."""
        for past in list(self._hours):
            if past < hour - WEEK:
                del self._hours[past]
            elif len(self._hours[past]) > LARGEST:
                sums = self._hours[past]
                self._hours[past] = sums.only(np.sort(np.argpartition(-sums.values, LARGEST)[:LARGEST]))

    def saved(self) -> dict[str, np.ndarray]:
        """Arrays for the state directory; the largest keys of each hour."""
        found: dict[str, np.ndarray] = {}
        for hour, sums in self._hours.items():
            if len(sums) > LARGEST:
                sums = sums.only(np.sort(np.argpartition(-sums.values, LARGEST)[:LARGEST]))
            found[f"k{hour}"], found[f"v{hour}"] = sums.keys, sums.values
        return found

    def restore(self, arrays: Any) -> None:
        """Take what an earlier run has saved. Raises ValueError or KeyError for anything else."""
        hours: dict[int, Sums] = {}
        for name in arrays:
            if name.startswith("k"):
                keys, values = arrays[name], arrays["v" + name[1:]]
                if keys.dtype != np.uint64 or keys.ndim != 2 or values.shape != (len(keys),):
                    raise ValueError("not sums of hours")
                hours[int(name[1:])] = Sums(keys, values.astype(np.float64))
        self._hours = hours
