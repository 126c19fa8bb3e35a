"""The manhole's keys: its own, made at the first start, and those of its users."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.checkers import IAuthorizedKeysDB, readAuthorizedKeyFile
from twisted.conch.ssh import keys
from zope.interface import implementer

from ulogd_tw.core import durable
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.regular_file import open_regular

_PUT_KEY = "put a public key there, as in ~/.ssh/id_ed25519.pub"


def load_host_key(path: str) -> keys.Key:
    """The server's private key; made if missing. Raises `StartError` if other users can read it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        _make_host_key(path)
        status = os.stat(path)
    except OSError as failure:
        raise StartError(f"manhole: host_key {path}: {failure.strerror}") from None
    if status.st_mode & 0o077:
        raise StartError(f"manhole: host_key {path}: users other than its owner can read it", f"chmod 600 {path}")
    try:
        return keys.Key.fromFile(path)
    except OSError as failure:
        raise StartError(f"manhole: host_key {path}: {failure.strerror}") from None
    except Exception as failure:  # conch and cryptography raise many kinds for a file that is no key
        text = f"manhole: host_key {path} is no private key: {failure}"
        raise StartError(text, "remove it, and the next start makes a new one") from None


def _make_host_key(path: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    try:
        durable.write(Path(path), lambda file: file.write(octets), mode=0o600)
    except OSError as failure:
        remedy = "give the service a directory that it may write to, or another host_key= in [manhole]"
        raise StartError(f"manhole: host_key {path} cannot be made: {failure.strerror}", remedy) from None


def check_authorized_keys(path: str) -> None:
    """Raises `StartError` unless the file has a usable key and only its owner can write it."""
    what = f"manhole: authorized_keys {path}"
    try:
        status = os.stat(path)
    except OSError as failure:
        raise StartError(f"{what}: {failure.strerror}", _PUT_KEY) from None
    if status.st_mode & 0o022:
        raise StartError(f"{what}: users other than its owner can write it", f"chmod go-w {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise StartError(f"{what}: it belongs to user {status.st_uid}, not to root or this user", f"chown root {path}")
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"{what} is not a file")
    try:
        usable = any(True for _ in AuthorizedKeys(path).getAuthorizedKeys(b""))
    except OSError as failure:
        raise StartError(f"{what}: {failure.strerror}") from None
    if not usable:
        raise StartError(f"{what}: it contains no key", _PUT_KEY)


@implementer(IAuthorizedKeysDB)
class AuthorizedKeys:
    """The keys of one file, the same for every user name."""

    def __init__(self, path: str) -> None:
        self.path = path

    def getAuthorizedKeys(self, username: bytes) -> Iterator[keys.Key]:
        with open_regular(self.path) as file:
            yield from readAuthorizedKeyFile(file, _public_key)


def _public_key(line: bytes) -> keys.Key:
    """One line as a public key. Raises BadKeyError to leave the line out."""
    try:
        return keys.Key.fromString(line)
    except keys.BadKeyError:
        raise
    except Exception as failure:  # a cut or garbled line raises what base64, struct and cryptography raise
        raise keys.BadKeyError(str(failure)) from None
