"""The keys added to each record by the collector: exporter, time of arrival, template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, repeated
from ulogd_tw.core.keys import CONTEXT, Key
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.session import Clock, DeferredMessage, KnownTemplate

Source = tuple[KnownTemplate, int, float, DeferredMessage | None, Clock | None]
"""Of the records of one Data Set: template, Export Time (s), time of arrival (s), its Message where that is deferred,
and for NetFlow the clock of its packet."""

_OF_TEMPLATE: dict[str, Callable[[KnownTemplate], Any]] = {
    "exporter": lambda known: known.session.address,
    "exporter_port": lambda known: known.session.peer_port,
    "observationDomainId": lambda known: known.domain.number,
    "templateId": lambda known: known.template.ident,
}
_OF_SOURCE: dict[str, Callable[[Source], Any]] = {
    "received_ms": lambda source: int(source[2] * 1000),
    "export_time": lambda source: source[1],
}


_ADDRESSES: dict[int, Type | None] = {0: None, 4: types.IPV4, 6: types.IPV6}


def _of_family(keys: Sequence[Key], address: Type | None) -> list[Key]:
    """The keys with an exporter of this type of address; without one there is no exporter."""
    found = (key.typed(address) if key.name == "exporter" and address else key for key in keys)
    return [key for key in found if key.name != "exporter" or address]


class Context:
    """Makes the wanted keys of `keys.CONTEXT`. A value common to all rows costs nothing a row."""

    def __init__(self, wanted: Wanted) -> None:
        keys = [key for key in CONTEXT if key.name in wanted]
        self._keys = {family: _of_family(keys, address) for family, address in _ADDRESSES.items()}

    def keys(self, family: int) -> list[Key]:
        """The keys for exporters of this address family; there is no exporter without an address (family 0)."""
        return self._keys[family if family in _ADDRESSES else 0]

    def columns(self, layout: Layout, sources: Sequence[Source], counts: np.ndarray, n: int) -> dict[str, Column]:
        """The columns of `n` records of a layout: `counts` of them from each source."""
        keys = self.keys(layout.family)
        if not keys:
            return {}
        templates = [source[0] for source in sources]
        if templates.count(templates[0]) == len(templates):
            del templates[1:]
        found: dict[str, Column] = {}
        for key in keys:
            if key.name == "record_kind":
                found[key.name] = repeated(b"options" if layout.scopes else b"data", n)
                continue
            if key.name in _OF_TEMPLATE:
                values = list(map(_OF_TEMPLATE[key.name], templates))
            else:
                values = list(map(_OF_SOURCE[key.name], sources))
            if values.count(values[0]) == len(values):
                found[key.name] = repeated(values[0], n, key.type.dtype)
            else:
                found[key.name] = np.repeat(np.array(values, key.type.dtype), counts, axis=0)
        return found
