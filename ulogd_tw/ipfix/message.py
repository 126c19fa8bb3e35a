"""The Message and Set headers of RFC 7011 section 3, and the cutting of a stream into Messages."""

from __future__ import annotations

import struct

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural

VERSION = 10
HEADER = struct.Struct("!HHIII")
"""Version, length, Export Time (s), Sequence Number, Observation Domain ID (section 3.1)."""
SET_HEADER = struct.Struct("!HH")
"""Set ID, length with this header (section 3.3.2)."""
TEMPLATE_SET = 2
OPTIONS_TEMPLATE_SET = 3
FIRST_DATA_SET = 256
MAX_LENGTH = 65535


def cut_sets(message: bytes) -> list[tuple[int, int, int]]:
    """The Sets of one whole Message: id, where the body begins, where it ends (section 3.3).

    Raises `MessageError` for a length below 4 or beyond the Message, and for octets that cannot be a Set.
    """
    sets = []
    at, end = HEADER.size, len(message)
    while at < end:
        if end - at < SET_HEADER.size:
            raise MessageError(f"{plural(end - at, 'octet')} after the last set", "set_length", at)
        set_id, length = SET_HEADER.unpack_from(message, at)
        if length < SET_HEADER.size:
            raise MessageError(f"set {set_id} has the length {length}", "set_length", at)
        if length > end - at:
            raise MessageError(f"set {set_id} of {plural(length, 'octet')} ends beyond the message", "set_length", at)
        sets.append((set_id, at + SET_HEADER.size, at + length))
        at += length
    return sets


class Framer:
    """Cuts a TCP stream into Messages by the length field only (section 10.4)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The Messages that are complete now. Raises `MessageError` where no Message can begin: the stream is lost."""
        data = self._rest + data if self._rest else data
        messages: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 4:
            version, length = SET_HEADER.unpack_from(data, at)
            if version != VERSION or length < HEADER.size:
                self._rest = b""
                text = f"no IPFIX message begins with version {version} and length {length}"
                error = MessageError(text, "framing", at)
                error.before = messages
                raise error
            if end - at < length:
                break
            messages.append(data[at : at + length])
            at += length
        self._rest = data[at:]
        return messages

    @property
    def waiting(self) -> int:
        """Octets of a Message that has not come whole."""
        return len(self._rest)


def whole_messages(octets: bytes | memoryview) -> tuple[int, int]:
    """The whole Messages at the beginning, such as of a file that was cut: how many, and their octets.

    A Message is whole when its Sets are; zeros, as a file system may leave them after a power failure, are none.
    """
    at = count = 0
    while len(octets) - at >= HEADER.size:
        version, length = SET_HEADER.unpack_from(octets, at)
        if version != VERSION or not HEADER.size < length <= len(octets) - at:
            break
        try:
            cut_sets(bytes(octets[at : at + length]))
        except MessageError:
            break
        at, count = at + length, count + 1
    return count, at
