"""Forms of a line of the log: for people, for the journal of systemd, and JSON for programs."""

from __future__ import annotations

import json
import math
import os
import syslog
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEventAsClassicLogText
from zope.interface import implementer

_TWISTED = ("twisted.", "log_legacy", "-", "ulogd_tw.operating.manhole._")
"""Namespaces of Twisted's own lines: ports that open, signals, the end of the main loop, sessions of the manhole."""
_PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
"""Priorities of syslog(3)."""


def level_of(event: LogEvent) -> Any:
    """The level of an event. Twisted's own reports of good news count as debug."""
    level = event.get("log_level") or LogLevel.info
    if level is LogLevel.info and str(event.get("log_namespace", "-")).startswith(_TWISTED):
        return LogLevel.debug
    return level


def is_journal(file: IO[str]) -> bool:
    """Whether this file is the stream to the journal that systemd gave to us (JOURNAL_STREAM of systemd.exec(5))."""
    try:
        found = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def complaint(text: str, file: Any) -> str:
    """An error for this file where there is no log: as it is, or with its priority where the journal reads it."""
    return prioritized(text, LogLevel.error) if is_journal(file) else text


def plain(event: LogEvent) -> str:
    """Time, namespace, level and text, as Twisted writes them; empty where there is nothing to say."""
    return formatEventAsClassicLogText(event) or ""


def bare(event: LogEvent) -> str:
    """The text alone, with the traceback of a failure: the journal has the time."""
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


def untimed(event: LogEvent) -> str:
    """Namespace, level and text, where another program notes the time; empty where there is nothing to say."""
    text = eventAsText(event, includeTimestamp=False)
    return text.replace("\n", "\n\t")


def as_json(event: LogEvent) -> str:
    """One object: time in UTC, level, namespace, text, and the event's own fields which are texts or numbers."""
    moment = datetime.fromtimestamp(event.get("log_time") or 0.0, UTC)
    known = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level_of(event).name,
        "part": str(event.get("log_namespace", "-")),
        "text": bare(event),
    }
    fields = {name: value for name, value in event.items() if _is_field(name, value)}
    return json.dumps(known | ({"fields": fields} if fields else {}))


def _is_field(name: str, value: Any) -> bool:
    """Whether it is a fact that our own code gave to the line, not one of Twisted's."""
    theirs = name.startswith("log_") or name in ("time", "system", "format", "message", "isError", "printed", "text")
    return not theirs and (isinstance(value, (str, int)) or isinstance(value, float) and math.isfinite(value))


def prioritized(text: str, level: Any) -> str:
    """Each line of the text behind its priority, as the journal reads it: ``<3>text`` (sd-daemon(3))."""
    prefix = f"<{_PRIORITIES[level]}>"
    return "\n".join(prefix + line for line in text.splitlines() if line.strip())


def form_of(name: str, journal: bool) -> Callable[[LogEvent], str]:
    """The lines of an event, by the value of ``log_format=``; each ends in a line feed, or there is none."""
    text_of = as_json if name == "json" else bare if journal else plain

    def lines(event: LogEvent) -> str:
        text = text_of(event).rstrip("\n")
        if journal:
            text = prioritized(text, level_of(event))
        return text + "\n" if text else ""

    return lines


@implementer(ILogObserver)
class LineObserver:
    """Writes each event to a file, by a form."""

    def __init__(self, file: Any, form: Callable[[LogEvent], str]) -> None:
        self._file = file
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        if text := self._form(event):
            self._file.write(text)
            self._file.flush()


@implementer(ILogObserver)
class SyslogLines:
    """Gives each event to syslog with its priority: a message for each line of its text, or one object of JSON."""

    def __init__(self, name: str) -> None:
        self._text = as_json if name == "json" else untimed
        syslog.openlog("ulogd", syslog.LOG_PID, syslog.LOG_USER)

    def __call__(self, event: LogEvent) -> None:
        for line in self._text(event).splitlines():
            syslog.syslog(_PRIORITIES[level_of(event)], line)
