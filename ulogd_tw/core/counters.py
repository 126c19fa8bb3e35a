"""What an instance did, in rows: each is passed on, written, filtered, merged, waiting, spooled or dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Counters:
    """The counters of one instance. `dropped`, `lost` and `errors` are by reason.

    `lost` is what never reached us (rows for IPFIX and NetFlow v5, messages for v9, events for netlink). `errors`
    counts occasions, not rows. `rows_spooled` were put on the disk at a stop, `rows_unspooled` (part of
    `rows_received`) are those that came from there at the start. An instance that makes rows of its own (an aggregate)
    sets `makes_rows`.
    """

    def __init__(self, plugin: str, makes_rows: bool = False) -> None:
        self.plugin = plugin
        self.makes_rows = makes_rows
        self.messages_received = 0
        self.octets_received = 0
        self.rows_received = 0
        self.rows_emitted = 0
        self.rows_filtered = 0
        self.rows_merged = 0
        self.rows_written = 0
        self.rows_waiting = 0
        self.rows_spooled = 0
        self.rows_unspooled = 0
        self.dropped: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        """Further figures of a plugin (``collectors`` of an exporter), printed as they are."""

    def unaccounted(self) -> int:
        """Rows received less all that became of them: 0 whenever the reactor is idle."""
        emitted = 0 if self.makes_rows else self.rows_emitted
        gone = emitted + self.rows_filtered + self.rows_merged + self.rows_written
        gone += self.rows_waiting + self.rows_spooled
        return self.rows_received - gone - self.dropped.total()

    def as_dict(self) -> dict[str, Any]:
        """The form of `stats_file`."""
        numbers = (
            "messages_received", "octets_received", "rows_received", "rows_emitted", "rows_filtered", "rows_merged",
            "rows_written", "rows_waiting", "rows_spooled", "rows_unspooled",
        )  # fmt: skip
        found: dict[str, Any] = {"plugin": self.plugin} | {name: getattr(self, name) for name in numbers}
        found |= {name: dict(getattr(self, name)) for name in ("dropped", "lost", "errors")}
        return found | {name: value() if callable(value) else value for name, value in self.figures.items()}
