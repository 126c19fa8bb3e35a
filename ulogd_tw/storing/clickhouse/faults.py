"""What ClickHouse's errors mean for rows: a `Fault` by the code of an error."""

from __future__ import annotations

from ulogd_tw.storing.clickhouse.client import NoAnswer, ServerError
from ulogd_tw.storing.refused import Fault

_AWAY = Fault("away", "", transient=True)
_BUSY = Fault("locked", "", transient=True)
_LOGIN = Fault("permission", "correct user= and pass= or pass_file=, or allow this host at the server")
_UNTRUSTED = Fault("permission", "set ssl_ca= to the CA of the server's certificate, and host= to a name in it")
_PERMISSION = Fault("permission", "grant the user INSERT and SELECT on the table")
_MISSING = Fault("table", "make the database and the table, or set create=1")
_UNFIT = Fault("table", "see that the table fits the keys, or make it anew")
_FAULTS = {
    **dict.fromkeys((192, 193, 194, 195, 516), _LOGIN),
    **dict.fromkeys((291, 497, 164), _PERMISSION),
    **dict.fromkeys((60, 81, 218), _MISSING),
    **dict.fromkeys((8, 10, 16, 20, 47, 50, 53, 70, 207), _UNFIT),
    **dict.fromkeys((159, 202, 209, 210, 216, 236, 279, 285, 319, 373, 394, 439, 473, 999, 1000, 241), _AWAY),
    89: Fault("refused", "set compression=gzip or none: this server does not know it"),
    242: Fault("read_only", "the table takes no rows; has its replica a Keeper?"),
    243: Fault("full", "make room on the disk of the server"),
    **dict.fromkeys((74, 75, 76, 77, 598), Fault("disk", "look at the disk of the server")),
}
"""Faults by the code (src/Common/ErrorCodes.cpp)."""
_BY_STATUS = {401: _LOGIN, 403: _LOGIN, 404: Fault("table", "is this ClickHouse's HTTP port?"),
              413: Fault("refused", "let the proxy take larger requests, or set a smaller queue_rows")}  # fmt: skip
_OF_ROWS = frozenset((6, 27, 69, 153, 321, 349, 395, 469))
"""Codes of errors about values: texts that cannot be read, throwIf(), constraints."""
_OF_VIEW = "while pushing to view"
_VIEW = Fault("table", "mend the view, or drop it", transient=True)
"""The table may have the rows of such an insert: they are repeated under their token, and never divided."""
TOO_MANY_PARTS = 252
_NOTHING_DONE = frozenset((202, 242, 243, TOO_MANY_PARTS))
_FOR_ONE_INSERT = "single INSERT"


def meaning(error: Exception) -> Fault | None:
    """The fault for an error of the client or of a file that it needs; None for other exceptions."""
    if isinstance(error, NoAnswer):
        return _UNTRUSTED if error.untrusted else _AWAY
    if isinstance(error, OSError):
        return Fault("permission", "see that the files of user_file, pass_file and ssl_ca are there and readable")
    if not isinstance(error, ServerError):
        return None
    if _OF_VIEW in str(error):
        return _VIEW
    if error.code == TOO_MANY_PARTS:
        return Fault("refused") if _FOR_ONE_INSERT in str(error) else _BUSY
    if error.code:
        return _FAULTS.get(error.code, Fault("refused"))
    return _BY_STATUS.get(error.status, _AWAY if error.status >= 500 else Fault("server"))


def nothing_done(error: Exception) -> bool:
    """Whether a server refuses an insert because of its own state, so that another server may take it."""
    return isinstance(error, ServerError) and error.code in _NOTHING_DONE and _FOR_ONE_INSERT not in str(error)


def in_doubt(error: Exception) -> bool:
    """Whether an insert with this error may have been done."""
    if isinstance(error, NoAnswer):
        return error.sent
    fault = meaning(error)
    return fault is not None and fault.transient and not nothing_done(error)


def about_row(error: Exception) -> bool:
    """Whether an error is about the values of rows."""
    return isinstance(error, ServerError) and (error.code in _OF_ROWS or _FOR_ONE_INSERT in str(error))


def text_of(error: Exception) -> str:
    """An error for a log line."""
    return f"{error} (error {error.code})" if isinstance(error, ServerError) and error.code else str(error)
