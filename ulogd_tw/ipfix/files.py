"""IPFIX files (RFC 5655): Messages one after another, also where a file is damaged."""

from __future__ import annotations

from ulogd_tw.ipfix.message import FIRST_DATA_SET, HEADER, SET_HEADER, VERSION

_BEGIN = VERSION.to_bytes(2, "big")
_MOST_APART = 86_400
"""Seconds by which the Export Time of the next Message may differ after damage."""
_SETS = 32
"""Sets of a Message that are looked at to find where one begins: octets that look like so many are one."""


class FileReader:
    """Cuts a file into Messages. After damage it looks for the next plausible Message Header (RFC 5655 section 7).

    `skipped` counts the octets that belong to no Message, `damages` the places.
    """

    def __init__(self) -> None:
        self.skipped = self.damages = 0
        self._rest = b""
        self._lost = False
        self._time = -1

    @property
    def waiting(self) -> int:
        """Octets of a Message that has not come whole."""
        return len(self._rest)

    def feed(self, octets: bytes) -> list[bytes]:
        """The Messages that are whole with these further octets."""
        data = self._rest + octets if self._rest else octets
        found, at, end = [], 0, len(data)
        while end - at >= HEADER.size:
            if self._lost:
                at, sure = self._search(data, at)
                if not sure:
                    break
            version, length, time, _, _ = HEADER.unpack_from(data, at)
            if version != VERSION or length < HEADER.size:
                self.damages += not self._lost
                self._lost = True
                continue
            if end - at < length:
                break
            found.append(data[at : at + length])
            self._time = time
            at += length
        self._rest = data[at:]
        return found

    def lose(self) -> None:
        """Octets are missing, or no Message need begin here: the next plausible one is looked for."""
        self.skipped += len(self._rest)
        self._rest = b""
        self._lost = True

    def finish(self) -> list[bytes]:
        """At the end of the file: Messages after one with a wrong length, which made it seem incomplete."""
        found: list[bytes] = []
        while len(self._rest) > HEADER.size and not self._lost:
            rest, self._rest = self._rest[1:], b""
            place = rest.find(_BEGIN)
            while place >= 0 and not self._plausible(rest, place, True):
                place = rest.find(_BEGIN, place + 1)
            if place < 0:
                self._rest = b"\0" + rest
                break
            self.damages += 1
            self.skipped += 1 + place
            found += self.feed(rest[place:])
        if self._lost:
            self.lose()  # no Message begins there, so none is cut
        return found

    def _search(self, data: bytes, at: int) -> tuple[int, bool]:
        """Where the next Message seems to begin; False where more octets are needed to say so."""
        start = at
        while True:
            place = data.find(_BEGIN, at)
            if place < 0:
                place = len(data) - 1  # it may begin with the last octet
                self.skipped += max(place - start, 0)
                return max(place, start), False
            if len(data) - place < HEADER.size + SET_HEADER.size:
                self.skipped += place - start
                return place, False
            if self._plausible(data, place, False):
                self.skipped += place - start
                self._lost = False
                return place, True
            at = place + 1

    def _plausible(self, data: bytes, at: int, whole: bool) -> bool:
        """Whether a Message may begin here: its header, and its first Sets as far as they are there."""
        if len(data) - at < HEADER.size + SET_HEADER.size:
            return False
        version, length, time, _, _ = HEADER.unpack_from(data, at)
        if version != VERSION or length < HEADER.size + SET_HEADER.size or (whole and at + length > len(data)):
            return False
        if self._time >= 0 and abs(time - self._time) > _MOST_APART:
            return False
        end, at = at + length, at + HEADER.size
        for _ in range(_SETS):
            if at >= end:
                break
            if len(data) - at < SET_HEADER.size:
                return True  # the rest is not there yet
            set_id, size = SET_HEADER.unpack_from(data, at)
            if not (set_id in (2, 3) or set_id >= FIRST_DATA_SET) or not SET_HEADER.size <= size <= end - at:
                return False
            at += size
        return True
