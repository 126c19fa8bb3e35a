"""A target of what writes lines of text: strings and numbers of any octets."""

import numpy as np

from ulogd_tw import kernels
from ulogd_tw.core import text, types
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.phrases import Colons, Hexadecimal

_NUMBERS = (types.UNSIGNED8, types.SIGNED16, types.UNSIGNED32, types.SIGNED64, types.MILLISECONDS, types.IPV4,
            types.IPV6, types.MAC)  # fmt: skip


def _fields(parts, data):
    n = len(parts)
    strings = Octets.of(parts)
    missing = np.array([len(part) % 3 == 0 for part in parts])
    for type_, form in ((types.STRING, text.JSON), (types.STRING, text.PLAIN), (types.OCTETS, text.JSON)):
        yield ColumnField(b"s=", strings, missing if form is text.PLAIN else None, Key("s", type_), form)
    yield Colons(b"c=", strings, missing)
    for type_ in _NUMBERS:
        each = type_.dtype.itemsize * (2 if type_ is types.IPV6 else 1)
        whole = (data * (1 + n * each // len(data)))[: n * each]
        values = np.frombuffer(whole, type_.dtype)
        yield ColumnField(
            b"n=", values.reshape(-1, 2) if type_ is types.IPV6 else values, None, Key("n", type_), text.JSON
        )
        if type_ is types.MILLISECONDS:
            yield Hexadecimal(values, missing, 8)


def lines(cut, data):
    """Lines have the same octets with the kernel, with NumPy, and row by row."""
    parts = cut(data)
    if not parts:
        return
    fields, made = list(_fields(parts, data)), Lines(b"\n{", b",", b"}")
    few = made._few(fields, len(parts))
    assert few == b"".join(octets for octets, _ in made.by_numpy(fields, len(parts)))
    assert few == made._slice(fields, slice(0, len(parts)))
    if kernels.lib is not None:
        assert few == b"".join(octets for octets, _ in made.compiled(fields, len(parts)))
