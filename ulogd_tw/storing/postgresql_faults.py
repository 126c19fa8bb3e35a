"""What PostgreSQL's errors mean for rows: a `Fault` for each SQLSTATE or its class, and the words for the log."""

from __future__ import annotations

import re

import psycopg

from ulogd_tw.storing.refused import Fault

_AWAY = Fault("away", "", transient=True)
_LOCKED = Fault("locked", "", transient=True)
_SERVER = Fault("server")
_PERMISSION = Fault("permission", "grant the user INSERT and SELECT on the table, and USAGE on its schema")
_LOGIN = Fault("permission", "correct user=, pass= or pass_file=, or allow this host in pg_hba.conf")
_IN_CLEAR = Fault(
    "permission", "set ssl_ca to the CA of the server's certificate, or host= to its Unix socket's folder"
)
_MISSING = Fault("table", "make the database and the table, or set create=1")
_UNFIT = Fault("table", "see that the table fits the keys, or make it anew")
_PROCEDURE = Fault("procedure", "make it, or set procedure=INSERT")
_FAULTS = {
    "28": _LOGIN, "42501": _PERMISSION, "3D": _MISSING, "3F": _MISSING, "42P01": _MISSING, "42883": _PROCEDURE,
    "42725": _PROCEDURE, "42809": _PROCEDURE, "42": _UNFIT, "22P03": _UNFIT, "22P04": _UNFIT, "0A": _UNFIT,
    "25006": Fault("read_only", "the server takes no writes; is it a standby?"),
    "53100": Fault("full", "make room on the disk of the server"), "53": _AWAY, "08": _AWAY, "57014": _LOCKED,
    "57": _AWAY, "40": _LOCKED, "55P03": _LOCKED, "25": _AWAY, "58": Fault("disk", "look at the disk of the server"),
    "XX001": Fault("disk", "the table is damaged"), "XX002": Fault("disk", "an index is damaged: REINDEX"),
    "22": Fault("refused"), "23": Fault("refused"),
}  # fmt: skip
"""Faults by SQLSTATE, or its class."""
_AT_CONNECT = (
    (re.compile("require_auth|cleartext password|clear text"), _IN_CLEAR),
    (re.compile("SSL|certificate"), Fault("permission", "set sslmode= and ssl_ca= as the server has it")),
    (re.compile('password|authentication|pg_hba.conf|role "'), _LOGIN),
    (re.compile('database ".*" does not exist'), _MISSING),
)
"""Faults by the text of libpq, which tells no SQLSTATE of a connection that was not made (seen with 18)."""


def meaning(error: Exception) -> Fault | None:
    """The fault for an error of psycopg, or of a file that it needs; None for other exceptions."""
    if isinstance(error, OSError):
        return Fault("permission", "correct pass_file=")
    if not isinstance(error, psycopg.Error):
        return None
    code = error.sqlstate or ""
    found = _FAULTS.get(code) or _FAULTS.get(code[:2])
    if found or code:
        return found or _SERVER
    if isinstance(error, psycopg.NotSupportedError):
        return _IN_CLEAR
    if isinstance(error, psycopg.ProgrammingError):
        return Fault("refused", "correct connstring=")
    return next((fault for pattern, fault in _AT_CONNECT if pattern.search(str(error))), _AWAY)


def text_of(error: Exception) -> str:
    """An error for a log line."""
    if not isinstance(error, psycopg.Error) or not error.sqlstate:
        return " ".join(str(error).split())
    return f"{error.diag.message_primary or str(error)} (error {error.sqlstate})"


def reason(error: psycopg.Error) -> str:
    """The server's text without the row's own values where it has a part for them, so that equal reasons are equal."""
    text = error.diag.message_primary or str(error)
    _, told, place = (error.diag.context or "").rpartition(", column ")
    column = error.diag.column_name or (place.partition(":")[0] if told else "")
    return f"{text} (column {column})" if column and column not in text else text
