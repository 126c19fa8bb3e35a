"""The Sequence Numbers of UDP exporters in a file in memory, so that what a killed process had received is known.

Each Observation Domain has an entry of eight words. The numbers are entered before the records are passed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ulogd_tw.core.mapped import MappedWords, read, split
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporters import Exporters, address_of, peer_of
from ulogd_tw.ipfix.session import Domain, Session

_HEAD = b"ulogd_tw positions 1\n"
_WORDS = 8
_NUMBER, _DOMAIN, _PLACE, _SENDER, _LAST = 0, 1, 2, 3, 7
_USED, _KNOWN = 1 << 33, 1 << 32
"""With the number in one word, so that it is never seen in part."""
_AT_FIRST = 64
"""Domains in a new file."""
_OF_SENDER = 28
"""Octets of a sender; of a session that has an address only, two less."""


class Position(NamedTuple):
    """The next number that is expected in a domain; None: unknown. `last` is when it was heard (s since 1970)."""

    place: int
    sender: bytes
    domain: int
    number: int | None
    last: int


class Positions:
    """The file at `path` of the domains of one decoder, at most `most`. Raises OSError."""

    def __init__(self, path: str, most: int) -> None:
        self._most = most
        self._file = MappedWords(path, _HEAD, _WORDS * min(_AT_FIRST, most))
        self._free = list(range(0, self._file.count, _WORDS))
        self._places: dict[str, int] = {}
        self.changed = False
        """Whether there is something for `sync`."""

    def note(self, heard: Iterable[Session], every: Iterable[Session], now: float) -> None:
        """Enter the numbers of some sessions, out of `every` session there is."""
        for session in heard:
            for domain in () if session.ended else session.domains.values():
                at = domain.noted
                if at < 0 and (at := self._enter(session, domain, every)) < 0:
                    continue
                number, words = domain.sequence.expected, self._file.words
                words[at + _NUMBER] = _USED | (_KNOWN | number if number >= 0 else 0)
                words[at + _LAST] = int(now)
        self.changed = True

    def _enter(self, session: Session, domain: Domain, every: Iterable[Session]) -> int:
        """The place of a new domain; -1 where there is no room."""
        if session.key is None or not (self._free or self._make_room(every)):
            return -1
        place, sender = session.key
        at, words = self._free.pop(), self._file.words
        words[at + _DOMAIN] = domain.place
        words[at + _PLACE] = self._place(str(place))
        octets = sender.ljust(31, b"\0") + bytes([len(sender)])
        for number in range(4):
            words[at + _SENDER + number] = int.from_bytes(octets[8 * number : 8 * number + 8], "little")
        domain.noted = at
        return at

    def _place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = place_number(text)
        return self._places[text]

    def _make_room(self, every: Iterable[Session]) -> bool:
        """Free the entries of domains that are gone; where these are few, the file grows."""
        used = {domain.noted for session in every for domain in session.domains.values()}
        words, count = self._file.words, self._file.count
        self._free = [at for at in range(0, count, _WORDS) if at not in used]
        for at in self._free:
            words[at + _NUMBER] = 0
        if len(self._free) < count // _WORDS // 4 and count < self._most * _WORDS:
            self._file.grow(min(2 * count, self._most * _WORDS))
            self._free += range(count, self._file.count, _WORDS)
        return bool(self._free)

    def sync(self) -> None:
        """Return once it is on the disk; for a thread."""
        self._file.sync()

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._file.close()


def place_number(text: str) -> int:
    """A listening address as 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


# an earlier run


def load(path: str, most: int, places: Iterable[str] | None = None) -> list[Position]:
    """The entries of a file, of these listening addresses or of all.

    Raises OSError, and ValueError for a file that is not one of these.
    """
    octets = read(path, (most + 1) * _WORDS * 8 + (1 << 20))
    if not octets.startswith(_HEAD):
        raise ValueError("it is damaged, or of a newer release")
    words = np.frombuffer(split(octets, len(_HEAD)), np.uint64).reshape(-1, _WORDS)
    used = words[:, _NUMBER] & np.uint64(_USED) != 0
    if places is not None:
        used &= np.isin(words[:, _PLACE], np.array([*map(place_number, places)], np.uint64))
    return list(_entries(words[used]))


def _entries(words: np.ndarray) -> Iterator[Position]:
    """One of each row; 0.5 million a second."""
    for entry in words.tolist():
        octets = b"".join(word.to_bytes(8, "little") for word in entry[_SENDER : _SENDER + 4])
        number = entry[_NUMBER] & 0xFFFFFFFF if entry[_NUMBER] & _KNOWN else None
        if octets[31] in (_OF_SENDER, _OF_SENDER - 2):
            yield Position(entry[_PLACE], octets[: octets[31]], entry[_DOMAIN], number, entry[_LAST])


def newest(entries: Iterable[Position]) -> list[Position]:
    """For each domain of a sender at an address the entry that was heard last, out of those of several files."""
    found: dict[tuple[int, bytes, int], Position] = {}
    for entry in entries:
        key = entry.place, entry.sender, entry.domain
        if key not in found or _is_newer(entry, found[key]):
            found[key] = entry
    return list(found.values())


def _is_newer(one: Position, other: Position) -> bool:
    """Within one second the number that is ahead is the newer one; numbers begin anew after 32 bits."""
    if one.last != other.last or one.number is None or other.number is None:
        return one.last > other.last
    return 0 < one.number - other.number & 0xFFFFFFFF < 1 << 31


def resume(
    entries: Iterable[Position], places: Iterable[str], decoder: Decoder, exporters: Exporters, idle: float, now: float
) -> int:
    """Go on from these numbers; how many domains do. Unknown exporters become sessions where they are not too old."""
    names, found = {place_number(place): place for place in places}, 0
    sessions = dict(exporters.items())
    for entry in entries:
        place = names.get(entry.place)
        if place is None or entry.number is None or now - entry.last >= idle:
            continue
        session: Session | str | None = sessions.get((place, entry.sender))
        if session is None and (place, address_of(entry.sender)) in sessions:
            continue  # its ports do not count any more
        if session is None:
            session = exporters.restore(place, entry.sender, peer_of(entry.sender), now, True)
        if isinstance(session, str):
            continue  # refused by a limit
        sessions[place, entry.sender] = session
        session.last_received = max(session.last_received, float(entry.last))
        found += decoder.resume_at(session, entry.domain, entry.number, now - entry.last)
    return found
