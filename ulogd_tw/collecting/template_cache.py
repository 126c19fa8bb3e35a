"""UDP exporters' templates in a file, so that their records can be decoded at once after a restart.

Lines of JSON: a head, then those of `exporter_lines`. The last line has the number of the lines before it and their
checksum.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet import defer, threads

from ulogd_tw.collecting.exporter_lines import Line, Restoring, copy, lines
from ulogd_tw.core import durable
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.regular_file import open_regular
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporters import Exporters
from ulogd_tw.ipfix.limits import Limits

if TYPE_CHECKING:
    from ulogd_tw.collecting.input import Collecting

VERSION = 1
_HEAD = {"ulogd_tw": "templates", "version": VERSION}
SOONEST = 1.0
"""Seconds between two writes, when templates change."""
_REST = 20
"""The pause is at least so many times as long as the work of the last write."""
LATEST = 300.0
"""Seconds after which it is written anyway, since repeated templates have a later expiry."""
_OF_FIELD, _OF_TEMPLATE, _OF_DOMAIN, _OF_NAME, _OF_ALL = 64, 256, 1024, 1024, 4 << 20
"""Octets of a file for each of what the limits allow, and for the rest; a larger file is of something else."""
_LONGEST_LINE = 16 << 20
_WRONG = (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError)
"""Whatever reading a damaged file raises."""


class TemplateCache:
    """The file of one collector. `kind` is the error as which faults count."""

    def __init__(
        self, path: str, collector: Collecting, kind: str = "template_cache", soonest: float = SOONEST
    ) -> None:
        self._path = Path(path)
        self._collector = collector
        self._kind = kind
        self._written = float("-inf")
        self._soonest = self._pause = soonest
        self._changes = -1
        self._writing: defer.Deferred[Any] | None = None

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self._path)

    # read

    def load(self, restoring: Restoring, others: Iterable[Path] = ()) -> None:
        """Restore sessions that have not been silent for too long. A file that is not whole is set aside, and said.

        An address may have been that of another collector: its file is one of `others`. For each session the file
        counts that has heard it last.
        """
        decoder = restoring.decoder
        files = [path for path in others if _mentions(path, restoring.places or ())]
        restoring.newest = _newest([self._path, *files], decoder.limits) if files else {}
        try:
            restoring.take_all(_lines(self._path, decoder.limits))
        except FileNotFoundError:
            pass
        except _WRONG as error:
            self._refuse(error)
        for path in files:
            with suppress(*_WRONG):  # its owner sets it aside
                restoring.take_all(_lines(path, decoder.limits))
        self._changes = decoder.changes
        if restoring.sessions:
            self._collector.log.info(
                "{instance}: template_cache has {templates} of {sessions}",
                instance=self._collector.instance, templates=plural(restoring.templates, "template"),
                sessions=plural(restoring.sessions, "exporter"),
            )  # fmt: skip

    def _refuse(self, error: Exception) -> None:
        """Count and say that the file is of no use; one that is readable, but wrong, is set aside."""
        self._collector.counters.errors[self._kind] += 1
        where = ""
        if not isinstance(error, OSError):
            aside = self._path.with_name(self._path.name + ".aside")
            try:
                os.replace(self._path, aside)
                where = f"; it is {aside} now"
            except OSError as failure:
                where = f"; it stays there ({failure})"
        self._collector.log.error(
            "{instance}: template_cache {path} is not used: {error}{where}; records wait until the exporters send "
            "their templates again", instance=self._collector.instance, path=str(self._path), error=error, where=where,
        )  # fmt: skip

    # write

    def wake(self, decoder: Decoder, exporters: Exporters, now: float) -> None:
        """Write it when something has changed; `now` are seconds of a steady clock."""
        age = now - self._written
        changed = decoder.changes != self._changes
        if self._writing is None and (age >= LATEST or (changed and age >= self._pause)):
            self.save(decoder, exporters, now)

    def save(self, decoder: Decoder, exporters: Exporters, now: float) -> defer.Deferred[Any]:
        """Write it in a thread, in the place of the former one only when it is whole."""
        if self._writing is not None:
            return self._writing.addCallback(lambda _: self.save(decoder, exporters, now))
        self._changes, self._written = decoder.changes, now
        writing = self._writing = threads.deferToThread(_write, self._path, copy(decoder, exporters))
        writing.addErrback(self._failed)

        def done(work: float | None) -> None:
            self._writing = None
            self._pause = max(self._soonest, _REST * (work or 0.0))

        return writing.addCallback(done)

    def _failed(self, failure: Any) -> None:
        self._collector.fault(failure.value)


def most_octets(limits: Limits) -> int:
    """The largest file that an earlier run with these limits may have written."""
    fields, templates = limits.fields_in_all * _OF_FIELD, limits.templates_in_all * _OF_TEMPLATE
    return _OF_ALL + fields + templates + limits.domains_in_all * _OF_DOMAIN + limits.told * _OF_NAME


def _write(path: Path, sessions: list[tuple]) -> float:
    """Write the file; the seconds of work, without those of waiting for the disk."""
    began = time.thread_time()
    durable.write(path, lambda file: _put(file, sessions), ".new")
    return time.thread_time() - began


def _put(file: BinaryIO, sessions: list[tuple]) -> None:
    crc = count = 0
    for line in _whole(sessions):
        octets = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        crc, count = zlib.crc32(octets, crc), count + 1
        file.write(octets)
    file.write(_end(count, crc))


def _whole(sessions: list[tuple]) -> Iterator[Line]:
    yield _HEAD
    yield from lines(sessions)


def _end(lines: int, crc32: int) -> bytes:
    """The last line of a file of so many lines."""
    return json.dumps({"lines": lines, "crc32": crc32}).encode() + b"\n"


def _check(file: BinaryIO, most: int) -> None:
    """Read it to its end. Raises ValueError for a file that is not one of these, not whole, or larger than `most`."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise ValueError(f"it has {size} octets, more than {most}, the most that max_templates and the like allow")
    head = file.readline(_LONGEST_LINE)
    _check_head(head)
    crc, count, line = 0, 0, head
    while following := file.readline(_LONGEST_LINE):
        crc, count, line = zlib.crc32(line, crc), count + 1, following
    if line != _end(count, crc):
        raise ValueError("its checksum is wrong")


def _check_head(line: bytes) -> None:
    try:
        head = json.loads(line)
        kind, version = head["ulogd_tw"], head["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is not a template cache, or it is damaged") from None
    if kind != "templates" or version != VERSION:
        raise ValueError(f"it is not a template cache of version {VERSION} (it says {kind!r}, version {version!r})")


def _lines(path: Path, limits: Limits) -> Iterator[Line]:
    """The lines of a file that is whole."""
    with open_regular(path) as file:
        _check(file, most_octets(limits))
        yield from _between(file)


def _mentions(path: Path, places: Iterable[str]) -> bool:
    """Whether a file has sessions of one of these addresses."""
    try:
        with open_regular(path) as file:
            octets = file.read()
    except OSError:
        return False
    return any(b'"place":' + json.dumps(place).encode() in octets for place in places)


def _newest(paths: Iterable[Path], limits: Limits) -> dict[tuple[str, str], float]:
    """When each session of these files was heard last, by address and sender."""
    found: dict[tuple[str, str], float] = {}
    for path in paths:
        with suppress(*_WRONG):
            for line in _lines(path, limits):
                if "peer" in line:
                    key = line["place"], line["sender"]
                    found[key] = max(found.get(key, 0.0), float(line["last"]))
    return found


def _between(file: BinaryIO) -> Iterator[Line]:
    """The lines between the head and the end of a checked file."""
    file.seek(0)
    file.readline()
    line = file.readline()
    while following := file.readline():
        yield json.loads(line)
        line = following
