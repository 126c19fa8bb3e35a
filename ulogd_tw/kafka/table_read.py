"""Rows as JSON or Arrow IPC become columns, by pyarrow."""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Iterable
from typing import Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column
from ulogd_tw.core.keys import Key
from ulogd_tw.kafka.rows import Cell, MistakenRows, key_of


def of_json(messages: Iterable[bytes]) -> Any:
    """The rows of messages with one JSON object a line, as a table. Raises `MistakenRows`."""
    import pyarrow.json

    text = b"\n".join(messages)
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=max(len(text) + 1, 1 << 20))
    try:
        return pyarrow.json.read_json(io.BytesIO(text), read_options=options)
    except pyarrow.ArrowInvalid as error:
        raise MistakenRows(str(error)) from None


def of_arrow(message: bytes) -> Any:
    """The rows of a stream of Arrow IPC, as a table. Raises `MistakenRows`."""
    import pyarrow

    try:
        return pyarrow.ipc.open_stream(message).read_all()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise MistakenRows(str(error)) from None


def cells(table: Any) -> dict[str, Cell]:
    """The columns of a table whose names are keys."""
    found = {}
    for name in table.column_names:
        key = key_of(name)
        if key is not None and (cell := _cell(key, table[name].combine_chunks())) is not None:
            found[name] = cell
    return found


def _cell(key: Key, array: Any) -> Cell | None:
    """A column as its key has it; None where its type does not fit."""
    import pyarrow

    missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    try:
        return Cell(key, _values(key, array), missing)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, ValueError, TypeError, OverflowError):
        return None


def _values(key: Key, array: Any) -> Column:
    import pyarrow

    type_ = array.type
    if key.type in (types.ADDRESS, types.IPV4, types.IPV6):
        return _addresses(array)
    if pyarrow.types.is_dictionary(type_) or pyarrow.types.is_string(type_) or pyarrow.types.is_large_string(type_):
        return _of_texts(key, array)
    if key.type.variable:
        raise ValueError("numbers for texts")
    filled = array.fill_null(False if pyarrow.types.is_boolean(type_) else 0)
    wanted = key.type.array_dtype
    return filled.cast(pyarrow.from_numpy_dtype(wanted)).to_numpy(zero_copy_only=False).astype(wanted)


def _of_texts(key: Key, array: Any) -> Column:
    """Texts, or values in a text form; each different one is read once."""
    codes, different = _different(array)
    if key.type.kind == "octets":
        return Coded(codes, [bytes.fromhex(text) for text in different])
    if key.type.variable:
        return Coded(codes, [text.encode() for text in different])
    if key.type.kind == "mac":
        values = [int(text.replace(":", ""), 16) for text in different]
    else:
        values = [int(text) for text in different]
    return np.array(values, key.type.array_dtype)[codes]


def _different(array: Any) -> tuple[np.ndarray, list[str]]:
    """A number for each row, and the values with these numbers."""
    import pyarrow

    coded = array if pyarrow.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.intp)
    return codes, [text or "" for text in coded.dictionary.to_pylist()] or [""]


def _addresses(array: Any) -> np.ndarray:
    """16 octets each; from texts or from values of 16 octets."""
    import pyarrow

    if isinstance(array, pyarrow.ExtensionArray):
        array = array.storage
    if pyarrow.types.is_fixed_size_binary(array.type):
        if array.type.byte_width != 16:
            raise ValueError("no addresses")
        whole = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, 16)
        return whole[array.offset : array.offset + len(array)]
    codes, different = _different(array)
    octets = b"".join(_sixteen(text) for text in different)
    return np.frombuffer(octets, np.uint8).reshape(-1, 16)[codes]


def _sixteen(text: str) -> bytes:
    if not text:
        return bytes(16)
    address = ipaddress.ip_address(text.partition("%")[0])
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
