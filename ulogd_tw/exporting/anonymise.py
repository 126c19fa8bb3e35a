"""Addresses that say less: cut to a prefix, or replaced so that prefixes stay prefixes (RFC 6235 section 4.1).

Crypto-PAn (Fan, Xu, Ammar, Moon 2004) turns bit i of an address by a bit of AES over the i bits before it, so that two
addresses have as many leading bits in common afterwards as before; with the same key always the same address comes out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.regular_file import open_regular

KEY_OCTETS = 32
_ORIGIN = frozenset(((0, 130), (0, 131), (0, 211), (0, 212)))
"""Addresses of exporters and collectors: they stay, as they say whose record it is."""
_TELLING = frozenset(((21373, 1), (0, 104), (0, 313), (0, 314), (0, 315), (0, 316)))
"""Elements with octets of packets, which have addresses in them: left out."""
_AT_ONCE = 1024
"""Addresses that are worked on together: 2 MB for IPv6."""
_WORD = (1 << 64) - 1

Change = Callable[[np.ndarray], np.ndarray]


class Anonymise:
    """Changes the addresses of batches: `four` a column of IPv4 addresses, `six` one of IPv6 (n, 2)."""

    def __init__(self, four: Change, six: Change) -> None:
        self._four = four
        self._six = six

    def batch(self, batch: Batch) -> Batch:
        """The batch with other addresses, and without octets of packets."""
        changed: dict[Key, Column] = {}
        for name, key in batch.schema.items():
            if key.type is types.IPV4 and not _ORIGIN & set(key.elements) and name != "exporter":
                changed[key] = self._four(numbers(batch.columns[name]))
            elif key.type is types.IPV6 and not _ORIGIN & set(key.elements) and name != "exporter":
                changed[key] = self._six(numbers(batch.columns[name]))
        kept = [name for name, key in batch.schema.items() if not _TELLING & set(key.elements)]
        if len(kept) < len(batch.schema):
            batch = batch.select(kept)
        masks = {key.name: batch.missing[key.name] for key in changed if key.name in batch.missing}
        # in the order of the schema, so that templates stay the same
        return batch.with_columns(changed, masks).select(kept)


def truncating(four: int, six: int) -> Anonymise:
    """Only the first bits stay, the others become 0."""
    mask4 = np.uint32((1 << 32) - (1 << 32 - four))
    mask6 = (1 << 128) - (1 << 128 - six)
    halves = np.array([mask6 >> 64, mask6 & _WORD], np.uint64)
    return Anonymise(lambda column: column & mask4, lambda column: column & halves)


def prefix_preserving(key: bytes) -> Anonymise:
    """Crypto-PAn with a key of 32 octets: 16 for AES, 16 that are encrypted to the padding."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # 20 ms, for who needs it

    cipher = Cipher(algorithms.AES(key[:16]), modes.ECB())  # noqa: S305 -- one block at a time, as Crypto-PAn has it

    def encrypted(octets: bytes) -> bytes:
        return cipher.encryptor().update(octets)

    pad = encrypted(key[16:])
    return Anonymise(_each_once(lambda column: _pan4(column, pad, encrypted)),
                     _each_once(lambda column: _pan6(column, pad, encrypted)))  # fmt: skip


def _each_once(change: Change) -> Change:
    """Each different address is changed once, some of them at a time."""

    def changed(column: np.ndarray) -> np.ndarray:
        values, places = np.unique(column, axis=0 if column.ndim == 2 else None, return_inverse=True)
        parts = [change(values[at : at + _AT_ONCE]) for at in range(0, len(values), _AT_ONCE)]
        return np.concatenate(parts)[places.reshape(-1)] if parts else column

    return changed


_BITS4 = np.array([(1 << 32) - (1 << 32 - bit) for bit in range(32)], np.uint32)
"""Masks of the bits before each bit."""
_BITS6 = np.array([((m := (1 << 128) - (1 << 128 - bit)) >> 64, m & _WORD) for bit in range(128)], np.uint64)


def _pan4(column: np.ndarray, pad: bytes, encrypted: Callable[[bytes], bytes]) -> np.ndarray:
    blocks = np.empty((len(column), 32, 4), ">u4")
    blocks[:] = np.frombuffer(pad, ">u4")
    blocks[:, :, 0] = (column[:, None] & _BITS4) | (int.from_bytes(pad[:4], "big") & ~_BITS4)
    return column ^ _first_bits(blocks, encrypted).view(">u4").reshape(-1).astype(np.uint32)


def _pan6(column: np.ndarray, pad: bytes, encrypted: Callable[[bytes], bytes]) -> np.ndarray:
    words = np.frombuffer(pad, ">u8").astype(np.uint64)
    blocks = ((column[:, None, :] & _BITS6) | (words & ~_BITS6)).astype(">u8")
    return column ^ _first_bits(blocks, encrypted).view(">u8").reshape(-1, 2).astype(np.uint64)


def _first_bits(blocks: np.ndarray, encrypted: Callable[[bytes], bytes]) -> np.ndarray:
    """The first bit of each encrypted block, those of an address packed one after another."""
    out = np.frombuffer(encrypted(blocks.tobytes()), np.uint8).reshape(*blocks.shape[:2], 16)
    return np.packbits(out[:, :, 0] >> 7, axis=1)


def read_key(path: str) -> bytes:
    """The key in a file: 64 hexadecimal digits, or 32 octets. Raises `StartError`."""
    try:
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StartError(f"anonymise_key {path} is readable for other users", f"chmod 600 {path}")
        with open_regular(path) as file:
            octets = file.read(4 * KEY_OCTETS)
    except OSError as error:
        raise StartError(f"anonymise_key: {error}", "make it: openssl rand -hex 32") from None
    if len(octets) == KEY_OCTETS:
        return octets
    try:
        key = bytes.fromhex(octets.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        raise StartError(
            f"anonymise_key {path} does not contain 64 hexadecimal digits", "make it: openssl rand -hex 32"
        )
    return key
