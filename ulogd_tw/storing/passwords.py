"""Passwords of databases that stand in files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.options import Option
from ulogd_tw.core.paths import input_file
from ulogd_tw.core.regular_file import open_regular

LONGEST = 4096
"""Octets of a password at most."""

PASS_FILE = Option(
    "pass_file", input_file, "", "File with the password of the user in its first line, instead of pass. It is read "
    "for each new connection, so that a new password needs no reload. Only the user of the service should be able to "
    "read it.",
)  # fmt: skip


def password_of(path: str) -> bytes:
    """The first line of a file. Raises OSError."""
    with open_regular(path) as file:
        return file.readline(LONGEST + 1).rstrip(b"\r\n")


def mistaken_password(config: Any) -> Iterator[tuple[str, str]]:
    """The mistake of a password in two places."""
    if config.pass_ and config.pass_file:
        yield "pass_file", "the password is given twice; leave out pass"
