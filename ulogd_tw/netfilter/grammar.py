"""The structure of a kind of netfilter message as data: its attributes, and the common parts of a layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.netfilter.attributes import attributes

HEADERS = 20
"""Octets before the attributes: struct nlmsghdr (16) and struct nfgenmsg (4)."""
IPV4, IPV6 = 2, 10
"""Address families."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a message; `octets` is its size, 0 for variable length. Numbers are in network byte order.

    `family` is the family of messages that can have it, 0 for any.
    """

    name: str
    octets: int
    family: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """An attribute with a struct of this size: (offset, field) of its members. Offsets are multiples of 4."""

    octets: int
    inside: tuple[tuple[int, Field], ...]


def fields_of(tree: Mapping) -> dict[str, Field]:
    """All fields of a tree by name: attribute type -> `Field`, `Parts`, or the attributes nested in it."""
    found: dict[str, Field] = {}
    for below in tree.values():
        if isinstance(below, Mapping):
            found |= fields_of(below)
        elif isinstance(below, Parts):
            found |= {part.name: part for _, part in below.inside}
        else:
            found[below.name] = below
    return found


@dataclass(frozen=True, slots=True)
class Walked:
    """The result of a walk through one message.

    heads     offsets of all attribute headers
    fields    name -> (offset, length)
    open_at   offset of the header of the last attribute if it may be of any length; 0: the length of the message
              is fixed
    same      name -> value of the fields alike in all messages of the layout
    """

    family: int
    event: int
    heads: tuple[int, ...]
    fields: dict[str, tuple[int, int]]
    open_at: int = 0
    same: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash of messages by (word, factor) of their 32-bit words.

    `of_text`: further ones for messages whose second attribute is of the type `text`, and reaches beyond the octets
    before the word; a word behind its end would be a value.
    """

    words: tuple[tuple[int, int], ...]
    text: int = 0
    of_text: tuple[tuple[int, int], ...] = ()

    def __call__(self, words: np.ndarray) -> np.ndarray:
        """The hash of each row of words, shape (n, w)."""
        found = np.zeros(len(words), np.uint32)
        for word, factor in self.words:
            found ^= words[:, word] * np.uint32(factor)
        if self.of_text:
            halves = words.view(np.uint16)
            size = np.where(halves[:, 2 * _SECOND + 1] == self.text, halves[:, 2 * _SECOND], 0)
            for word, factor in self.of_text:
                found ^= np.where(size > 4 * (word - _SECOND), words[:, word], 0) * np.uint32(factor)
        return found

    def plan(self) -> list[tuple[int, int, int]]:
        """(word, factor, octets of the text before it, 0 for words of all messages)."""
        of_text = [(word, factor, 4 * (word - _SECOND)) for word, factor in self.of_text]
        return [(word, factor, 0) for word, factor in self.words] + of_text


_SECOND = 7
"""The word with the header of the second attribute, where the first one has 4 octets."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A kind of message.

    walk      finds the places of all values; raises `MessageError`
    fixed     (offset, octets) of the parts of the headers alike in all messages of a layout
    key       the octets of one message that choose the layouts to try
    hashed    the same for many: a hash of their words
    octets    likely maximum of octets read from a message, a multiple of 8
    layouts   maximum number of layouts learnt
    """

    fields: Mapping[str, Field]
    walk: Callable[[bytes], Walked]
    fixed: tuple[tuple[int, int], ...]
    key: Callable[[bytes], bytes]
    hashed: Hash
    octets: int
    layouts: int


def step(octets: bytes, start: int, end: int, tree: Mapping, heads: list[int], fields: dict) -> None:
    """Record the attributes between `start` and `end`: their headers, and the places of the fields of the tree.

    Raises `MessageError`. Of a repeated attribute the last one counts, as in the kernel's nla_parse.
    """
    for kind, at, length in attributes(octets, start, end):
        heads.append(at - 4)
        below = tree.get(kind)
        if isinstance(below, Mapping):
            step(octets, at, at + length, below, heads, fields)
        # Empty ones are padding where the kernel aligns 64-bit values; before CTA_TIMESTAMP_EVENT (6.14) it is
        # even of type 3, although CTA_STATUS is 3 at this level.
        elif below is not None and length:
            if below.octets not in (0, length):
                name = below.name if isinstance(below, Field) else below.inside[0][1].name
                raise MessageError(f"{name} of {plural(length, 'octet')}", "attribute size", at)
            if isinstance(below, Parts):
                fields |= {part.name: (at + offset, part.octets) for offset, part in below.inside}
            else:
                fields[below.name] = (at, length)
