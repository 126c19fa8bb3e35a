"""Columns as cells of lines for the compiled kernel; what it does not know becomes texts first, as without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ulogd_tw.core import text
from ulogd_tw.core.aligned import Part
from ulogd_tw.core.columns import Coded, Column, Octets, Pieces
from ulogd_tw.core.keys import Key
from ulogd_tw.core.text import FEW, TextFormat
from ulogd_tw.kernels import rows
from ulogd_tw.kernels.rows import Cells, Choice

_ESCAPES = {text.JSON.escape: rows.JSON, text.PLAIN.escape: rows.PLAIN}
_NUMBERS = ("unsigned", "signed", "seconds", "milliseconds")
_KINDS = {
    (kind, char): rows.SIGNED if char in "bhilq" else rows.UNSIGNED for kind in _NUMBERS for char in "BHILQbhilq"
} | {("ipv4", "I"): rows.IPV4, ("ipv6", "L"): rows.IPV6, ("mac", "L"): rows.MAC}
"""The kernel's kinds of numbers, by the kind of the key's type and the code of the array's dtype."""


def add(to: Cells, column: Column, key: Key, form: TextFormat) -> None:
    """The values of a column, which is `readable`, with the quotes of the format."""
    kind = key.type.kind
    if not isinstance(column, np.ndarray):
        _add_strings(to, column, key, form)
    elif column.strides[0] == 0:
        to.text(b"%d" % column.item(0) if kind in _NUMBERS else text.tokens(column[:1], key, form)[0])
    elif (number := _KINDS.get((kind, column.dtype.char))) and column.dtype.isnative:
        to.numbers(number, _flat(column), _quote(form) if number >= rows.IPV4 else 0)
    elif kind == "boolean" and column.itemsize == 1:
        to.choice(_truth(form.truth), _flat(column))
    else:
        add_texts(to, lambda _: text.tokens(column, key, form), lambda _: text.parts(column, key, form))


def _add_strings(to: Cells, column: Octets | Coded, key: Key, form: TextFormat) -> None:
    kind = key.type.kind
    if kind == "string" and form.escape not in _ESCAPES:
        add_texts(to, lambda _: text.tokens(column, key, form), lambda _: text.parts(column, key, form))
    elif isinstance(column, Coded) and column.codes.strides[0] == 0:
        to.text(text.tokens(column.take(slice(0, 1)), key, form)[0])
    elif kind == "list":
        add_octets(to, column)
    else:
        add_octets(to, column, _ESCAPES[form.escape] if kind == "string" else rows.DIGITS, _quote(form))


def add_octets(to: Cells, column: Octets | Coded, form: int = rows.AS_IT_IS, quote: int = 0) -> None:
    """Octet strings in this form."""
    if isinstance(column, Pieces):
        starts, sizes = (_flat(places.astype(np.int64, copy=False)) for places in (column.starts, column.sizes))
        to.strings(_flat(column.buffer), starts, sizes, form, quote)
    elif isinstance(column, Octets):
        to.strings(_flat(column.data), _flat(column.offsets.astype(np.int64, copy=False)), None, form, quote)
    elif len(column.values) <= FEW + len(column):
        to.choice(Choice(column.values), _flat(column.codes), form, quote)
    else:
        to.choice(Choice(column.to_list()), np.arange(len(column)), form, quote)


def add_texts(to: Cells, tokens: Callable[[slice], list[bytes]], parts: Callable[[slice], Sequence[Part]]) -> None:
    """Values as texts made without the kernel: of few rows each, of many in parts."""
    every = slice(0, to.n)
    if to.n <= FEW:
        to.choice(Choice(tokens(every)), np.arange(to.n))
        return
    for part in parts(every):
        if isinstance(part, bytes):
            to.text(part)
        else:
            texts = part.strings()
            lengths = np.ascontiguousarray(texts.lengths, np.int64)
            to.strings(texts.data, np.ascontiguousarray(texts.ends, np.int64) - lengths, lengths)


def add_numbers(to: Cells, kind: int, values: np.ndarray, least: int = 0) -> None:
    """Numbers in a form of the kernel's."""
    to.numbers(kind, _flat(values), 0, least)


def add_choice(to: Cells, texts: Choice, codes: np.ndarray) -> None:
    """One of a few texts in each row."""
    if codes.strides[0] == 0 or len(texts.texts) == 1:
        to.text(texts.texts[int(codes[0])])
    else:
        to.choice(texts, _flat(codes))


def _flat(values: np.ndarray) -> np.ndarray:
    """The array with one value behind another."""
    return values if values.flags.c_contiguous else np.ascontiguousarray(values)


def _quote(form: TextFormat) -> int:
    return form.quote[0] if form.quote else 0


_truth = lru_cache(16)(Choice)
