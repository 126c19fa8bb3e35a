"""Elements of enterprises as exporters describe them: name, type, semantics, units (RFC 5610)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ulogd_tw.core import types
from ulogd_tw.core.keys import REVERSE_PEN, Element, Key, registry
from ulogd_tw.ipfix.told_names import cleaned

USED = ("privateEnterpriseNumber", "informationElementId", "informationElementDataType",
        "informationElementSemantics", "informationElementName", "informationElementUnits")  # fmt: skip
"""Keys of options records that are read."""
DATA_TYPE = "informationElementDataType"
"""The key that makes an options record a description."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
DATA_TYPES = (
    types.OCTETS, types.UNSIGNED8, types.UNSIGNED16, types.UNSIGNED32, types.UNSIGNED64, types.SIGNED8, types.SIGNED16,
    types.SIGNED32, types.SIGNED64, types.FLOAT32, types.FLOAT64, types.BOOLEAN, types.MAC, types.STRING, types.SECONDS,
    types.MILLISECONDS, types.MICROSECONDS, types.NANOSECONDS, types.IPV4, types.IPV6, types.BASIC_LIST,
    types.SUB_TEMPLATE_LIST, types.SUB_TEMPLATE_MULTI_LIST, types.UNSIGNED256,
)  # fmt: skip
"""By the codes of informationElementDataType (RFC 5610 section 3.1)."""
SEMANTICS = ("default", "quantity", "totalCounter", "deltaCounter", "identifier", "flags", "list", "snmpCounter",
             "snmpGauge")  # fmt: skip
UNITS = {2: "octets", 3: "packets", 4: "flows", 5: "seconds", 6: "milliseconds", 7: "microseconds", 8: "nanoseconds"}


def described(record: Mapping[str, Any], known: Mapping[Element, Key]) -> Key | str | None:
    """The key of the element described by a record, beside those that are `known`.

    None if the registry knows the element, its number is IANA's, or it has no type; the reason for an impossible name.
    """
    # The enterprise bit is part of the number with some exporters.
    pen, ident = record.get("privateEnterpriseNumber", 0), record.get("informationElementId", 0) & 0x7FFF
    element, code = (pen, ident), record[DATA_TYPE]
    if not all(element) or pen == REVERSE_PEN or element in registry.enterprise or code >= len(DATA_TYPES):
        return None
    name = cleaned(record.get("informationElementName", b"")).decode("ascii", "replace")
    if not _NAME.fullmatch(name):
        return "element_name"
    if registry.key(name) is not None or any(key.name == name and other != element for other, key in known.items()):
        name = f"e{element[0]}.{name}"
    semantics = record.get("informationElementSemantics", 0)
    semantics = SEMANTICS[semantics] if semantics < len(SEMANTICS) else ""
    unit = UNITS.get(record.get("informationElementUnits", 0), "")
    return Key(name, DATA_TYPES[code], (element,), unit, semantics)
