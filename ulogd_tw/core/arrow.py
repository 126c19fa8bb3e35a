"""Columns as Arrow's C stream: DuckDB, pandas, Polars and others read them without a copy and without pyarrow.

A `Stream` has the attribute ``__arrow_c_stream__`` of Arrow's PyCapsule interface. The structures are those of the
Arrow C data interface and C stream interface (arrow.apache.org/docs/format). Numbers of native byte order stay in
their NumPy arrays; strings are `Octets` or `Coded`, which are Arrow's large strings and dictionaries.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulogd_tw.core.columns import Coded, Octets

# types and values


@dataclass(frozen=True, slots=True)
class ArrowType:
    """A type by its format string, with the name of an extension type, if it is one."""

    format: str
    extension: str = ""


UUID = ArrowType("w:16", "arrow.uuid")
"""16 octets in network order: the type of addresses, for which DuckDB and Parquet have an order by octets."""
BOOLEAN = ArrowType("b")
TEXT = ArrowType("U")
OCTETS = ArrowType("Z")
NUMBERS = {
    np.dtype(code): ArrowType(letter)
    for code, letter in zip("BHILbhilfd", "CSILcsilfg", strict=True)
}  # fmt: skip
"""Types of arrays of numbers, all of native byte order."""
_MAPPED = np.uint64(0xFFFF_0000_0000)
"""The upper part of the low half of ::ffff:0:0/96, in which IPv4 addresses are."""


@dataclass(frozen=True, slots=True)
class Vector:
    """The values of one column: Arrow's buffers, the mask of missing values first (None: nothing is missing)."""

    type: ArrowType
    n: int
    nulls: int
    buffers: tuple[np.ndarray | None, ...]
    dictionary: Vector | None = None

    @property
    def nbytes(self) -> int:
        """Octets of memory held by the buffers."""
        own = sum(buffer.nbytes for buffer in self.buffers if buffer is not None)
        return own + (self.dictionary.nbytes if self.dictionary else 0)

    def plain(self) -> Vector:
        """The same values without a dictionary."""
        if self.dictionary is None:
            return self
        valid, codes = self.buffers
        _, offsets, data = self.dictionary.buffers
        assert codes is not None and offsets is not None and data is not None
        found = Octets(offsets, data).take(np.asarray(codes, np.int64))
        return Vector(self.type, self.n, self.nulls, (valid, found.offsets, found.data))


def numbers(array: np.ndarray, missing: np.ndarray | None = None) -> Vector:
    """A column of numbers of native byte order, or of booleans. Raises KeyError for other arrays."""
    if array.dtype == bool:
        values, type_ = np.packbits(array, bitorder="little"), BOOLEAN
    else:
        values, type_ = np.ascontiguousarray(array), NUMBERS[array.dtype]
    nulls, valid = _validity(missing)
    return Vector(type_, len(array), nulls, (valid, values))


def strings(column: Octets | Coded, missing: np.ndarray | None = None, type_: ArrowType = TEXT) -> Vector:
    """A column of texts, which must be UTF-8, or of octets (`OCTETS`)."""
    nulls, valid = _validity(missing)
    if isinstance(column, Coded):
        codes = np.ascontiguousarray(column.codes, np.int32)
        different = strings(Octets.of(column.values or (b"",)), None, type_)
        if missing is not None:
            codes = np.where(missing, np.int32(0), codes)
        return Vector(type_, len(codes), nulls, (valid, codes), different)
    plain = column.plain()
    offsets = np.ascontiguousarray(plain.offsets, np.int64)
    return Vector(type_, len(plain), nulls, (valid, offsets, np.ascontiguousarray(plain.data)))


def addresses(column: np.ndarray, missing: np.ndarray | None = None) -> Vector:
    """IPv4 addresses (uint32) or IPv6 addresses (two uint64 a row) as 16 octets; IPv4 as ::ffff:a.b.c.d."""
    octets = np.zeros((len(column), 2), ">u8")
    if column.ndim == 1:
        octets[:, 1] = column.astype(np.uint64) | _MAPPED
    else:
        octets[:] = column
    nulls, valid = _validity(missing)
    return Vector(UUID, len(column), nulls, (valid, octets))


def nothing(type_: ArrowType, n: int) -> Vector:
    """A column of this type of which all values are missing."""
    missing = np.ones(n, bool)
    if type_ == UUID:
        return addresses(np.zeros(n, np.uint32), missing)
    if type_ in (TEXT, OCTETS):
        return strings(Octets(np.zeros(n + 1, np.int64), np.zeros(0, np.uint8)), missing, type_)
    dtype = next((dtype for dtype, one in NUMBERS.items() if one == type_), np.dtype(bool))
    return numbers(np.zeros(n, dtype), missing)


def _validity(missing: np.ndarray | None) -> tuple[int, np.ndarray | None]:
    """How many values are missing, and Arrow's bitmap of those that are there."""
    nulls = 0 if missing is None else int(np.count_nonzero(missing))
    if missing is None or not nulls:
        return 0, None
    return nulls, np.packbits(~np.asarray(missing, bool), bitorder="little")


# the structures of the C interfaces


class _Schema(ctypes.Structure):
    """struct ArrowSchema."""


class _Array(ctypes.Structure):
    """struct ArrowArray."""


class _Stream(ctypes.Structure):
    """struct ArrowArrayStream."""


_P = ctypes.POINTER
_ReleaseSchema = ctypes.CFUNCTYPE(None, _P(_Schema))
_ReleaseArray = ctypes.CFUNCTYPE(None, _P(_Array))
_ReleaseStream = ctypes.CFUNCTYPE(None, _P(_Stream))
_GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, _P(_Stream), _P(_Schema))
_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, _P(_Stream), _P(_Array))
_GetError = ctypes.CFUNCTYPE(ctypes.c_void_p, _P(_Stream))
_Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", _P(_P(_Schema))), ("dictionary", _P(_Schema)),
    ("release", _ReleaseSchema), ("private_data", ctypes.c_void_p),
]  # fmt: skip
_Array._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", _P(ctypes.c_void_p)),
    ("children", _P(_P(_Array))), ("dictionary", _P(_Array)), ("release", _ReleaseArray),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip
_Stream._fields_ = [
    ("get_schema", _GetSchema), ("get_next", _GetNext), ("get_last_error", _GetError), ("release", _ReleaseStream),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip
_NULLABLE = 2
_EIO = 5

_kept: dict[int, Any] = {}
"""What the structures given away point at, by the number in `private_data`, until they are released."""
_numbers = itertools.count(1)


def _keep(what: Any) -> int:
    number = next(_numbers)
    _kept[number] = what
    return number


def _release(structure: Any, released: Any) -> None:
    """Release children and dictionary that the reader did not take over, then the structure itself.

    They are ours too: a call of their function would let go of the interpreter and wait for it again.
    """
    for place in range(structure.n_children):
        _release_pointed(structure.children[place], released)
    _release_pointed(structure.dictionary, released)
    _kept.pop(structure.private_data, None)
    structure.release = released


def _release_pointed(pointer: Any, released: Any) -> None:
    if pointer and pointer.contents.release:
        _release(pointer.contents, released)


@_ReleaseSchema
def _release_schema(pointer: Any) -> None:
    _release(pointer.contents, _NO_SCHEMA)


@_ReleaseArray
def _release_array(pointer: Any) -> None:
    _release(pointer.contents, _NO_ARRAY)


@_ReleaseStream
def _release_stream(pointer: Any) -> None:
    _kept.pop(pointer.contents.private_data, None)
    pointer.contents.release = _ReleaseStream(0)


_NO_SCHEMA, _NO_ARRAY = _ReleaseSchema(0), _ReleaseArray(0)
"""What a released structure has for its function."""


@_GetSchema
def _get_schema(pointer: Any, out: Any) -> int:
    stream, _ = _kept[pointer.contents.private_data]
    fields = [_field(name, type_, coded) for name, type_, coded in stream.fields]
    children = _pointers(_Schema, fields)
    _fill(out.contents, (children, fields), format=b"+s", name=b"", n_children=len(fields), children=children,
          release=_release_schema)  # fmt: skip
    return 0


@_GetNext
def _get_next(pointer: Any, out: Any) -> int:
    _, rest = _kept[pointer.contents.private_data]
    try:
        vectors = next(rest, None)
    except Exception:
        return _EIO
    if vectors is None:
        ctypes.memset(out, 0, ctypes.sizeof(_Array))
        return 0
    arrays = [_array(vector) for vector in vectors]
    children, buffers = _pointers(_Array, arrays), (ctypes.c_void_p * 1)(None)
    _fill(out.contents, (children, arrays, buffers), length=vectors[0].n if vectors else 0, n_buffers=1,
          buffers=buffers, n_children=len(arrays), children=children, release=_release_array)  # fmt: skip
    return 0


@_GetError
def _get_error(pointer: Any) -> None:
    return None


def _fill(structure: Any, kept: Any, **values: Any) -> Any:
    """Set the fields of a structure, 0 where nothing is said; `kept` lives until it is released."""
    ctypes.memset(ctypes.byref(structure), 0, ctypes.sizeof(structure))
    for name, value in values.items():
        setattr(structure, name, value)
    structure.private_data = _keep((kept, values))
    return structure


def _pointers(kind: type, structures: Sequence[Any]) -> Any:
    return (_P(kind) * max(len(structures), 1))(*map(ctypes.pointer, structures))


def _field(name: str, type_: ArrowType, coded: bool) -> _Schema:
    """The schema of one column; that of a coded one is the type of its codes, with a dictionary."""
    dictionary = ctypes.pointer(_field("", type_, False)) if coded else None
    metadata = _metadata({"ARROW:extension:name": type_.extension, "ARROW:extension:metadata": ""})
    return _fill(
        _Schema(),
        None,
        format=b"i" if coded else type_.format.encode(),
        name=name.encode(),
        metadata=metadata if type_.extension else None,
        flags=_NULLABLE,
        dictionary=dictionary,
        release=_release_schema,
    )


def _metadata(pairs: dict[str, str]) -> bytes:
    """Pairs of names and values, as the C data interface has them in a schema."""
    found = struct.pack("=i", len(pairs))
    for word in itertools.chain.from_iterable(pairs.items()):
        found += struct.pack("=i", len(word)) + word.encode()
    return found


def _array(vector: Vector) -> _Array:
    places = [None if buffer is None else buffer.ctypes.data for buffer in vector.buffers]
    buffers = (ctypes.c_void_p * len(places))(*places)
    dictionary = ctypes.pointer(_array(vector.dictionary)) if vector.dictionary else None
    return _fill(
        _Array(),
        vector,
        length=vector.n,
        null_count=vector.nulls,
        n_buffers=len(places),
        buffers=buffers,
        dictionary=dictionary,
        release=_release_array,
    )


# streams

_NAME = b"arrow_array_stream"
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsules: dict[int, _Stream] = {}
"""The stream of each capsule that is there, by its address."""


@_Destructor
def _capsule_gone(capsule: int) -> None:
    """Release a stream that nobody took over."""
    stream = _capsules.pop(_pointer_of(capsule, _NAME))
    if stream.release:
        stream.release(ctypes.byref(stream))


_DESTRUCTOR = ctypes.cast(_capsule_gone, ctypes.c_void_p)


class Stream:
    """Rows in chunks, each a `Vector` a column, all chunks of the same types; may be read more than once.

    `coded` says of a column whether its vectors have dictionaries.
    """

    def __init__(self, names: Iterable[str], chunks: Sequence[Sequence[Vector]]) -> None:
        self.chunks = chunks
        first = chunks[0] if chunks else ()
        self.fields = [
            (name, vector.type, vector.dictionary is not None) for name, vector in zip(names, first, strict=True)
        ]
        shapes = {tuple((vector.type, vector.dictionary is not None) for vector in chunk) for chunk in chunks}
        if len(shapes) > 1:
            raise ValueError("the chunks of a stream have different types")

    @property
    def n(self) -> int:
        """Rows of all chunks."""
        return sum(chunk[0].n for chunk in self.chunks if chunk)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule with the rows, for any reader of Arrow."""
        stream = _Stream(_get_schema, _get_next, _get_error, _release_stream)
        stream.private_data = _keep((self, iter(self.chunks)))
        place = ctypes.addressof(stream)
        _capsules[place] = stream
        return _new_capsule(place, _NAME, _DESTRUCTOR)
