"""Tokens: those of a file, the one-time token of a start, and the sessions that it opens."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from typing import Any

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.regular_file import open_regular

LEAST = 16
"""Minimum characters of a token."""
_MOST_OCTETS = 1 << 16
MOST_SESSIONS = 64
SESSION_SECONDS = 12 * 3600


def _digest(token: str) -> bytes:
    """Of one length for all tokens, so that comparing takes the same time for all."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def same(one: bytes, others: list[bytes]) -> bool:
    """Whether a digest is among others, in a time that does not depend on them."""
    found = False
    for other in others:
        found |= hmac.compare_digest(one, other)
    return found


class Tokens:
    """The tokens of a door; without a path there are none in a file. `clock` counts seconds."""

    def __init__(self, path: str, clock: Any) -> None:
        self._path = path
        self._clock = clock
        self._seen: Any = None
        self._known: list[bytes] = []
        self._once: list[bytes] = []
        self._sessions: dict[bytes, float] = {}

    @property
    def any(self) -> bool:
        """Whether a token can open this door."""
        return bool(self._path)

    def open(self) -> None:
        """Read the file. Raises `StartError`."""
        if self._path:
            self._known = _read(self._path)
            self._seen = _stamp(self._path)

    def knows(self, token: str) -> bool:
        """Whether this is a token of the file as it is now. A file that cannot be read any more opens nothing."""
        if self._path and _stamp(self._path) != self._seen:
            self._seen = _stamp(self._path)
            try:
                self._known = _read(self._path)
            except StartError:
                self._known = []
        return same(_digest(token), self._known)

    def one_time(self) -> str:
        """A new token that opens one session."""
        token = secrets.token_urlsafe(24)
        self._once.append(_digest(token))
        return token

    def begin(self, token: str) -> str | None:
        """The word of a new session for a token; None for a wrong one. A one-time token is used up."""
        digest = _digest(token)
        if same(digest, self._once):
            self._once.remove(digest)
        elif not self.knows(token):
            return None
        word = secrets.token_urlsafe(24)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(word)] = self._clock.seconds() + SESSION_SECONDS
        return word

    def in_session(self, word: str) -> bool:
        """Whether this is the word of a session that has not ended."""
        now = self._clock.seconds()
        self._sessions = {digest: ends for digest, ends in self._sessions.items() if ends > now}
        return same(_digest(word), list(self._sessions))


def _read(path: str) -> list[bytes]:
    """The digests of the tokens in a file. Raises `StartError`."""
    try:
        with open_regular(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            octets = file.read(_MOST_OCTETS)
    except OSError as error:
        raise StartError(f"token_file {path}: {error.strerror or error}", "make it: openssl rand -hex 24") from None
    if mode & 0o077:
        raise StartError(f"users other than its owner can read {path} (mode {mode:04o})", f"chmod 600 {path}")
    lines = [line.strip() for line in octets.decode("utf-8", "surrogateescape").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found or any(len(line) < LEAST for line in found):
        raise StartError(f"{path} must have a token of at least {LEAST} characters a line", "openssl rand -hex 24")
    return [_digest(line) for line in found]


def _stamp(path: str) -> Any:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode
