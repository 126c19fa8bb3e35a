"""The options of an exporter about its collectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ulogd_tw.ipfix.template import Template
from ulogd_tw.ipfix.wire_format import IPFIX, WireFormat


@dataclass(frozen=True)
class Settings:
    """The settings common to the collectors of one exporter. `templates` grows; an id in it never changes."""

    reactor: Any
    clock: Callable[[], float]
    domain: int
    templates: dict[int, Template]
    queue_octets: int
    mtu: int | None = None
    reconnect: float = 60.0
    send_template: str = "once"
    template_refresh: float = 60.0
    template_packets: int = 0
    form: WireFormat = IPFIX
