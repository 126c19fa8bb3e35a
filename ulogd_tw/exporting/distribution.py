"""Records into Messages, and Messages to the collectors that are to have them."""

from __future__ import annotations

from collections.abc import Sequence

from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.routing import Group
from ulogd_tw.ipfix.builder import MessageBuilder, Messages
from ulogd_tw.ipfix.encoder import Records
from ulogd_tw.ipfix.wire_format import WireFormat


class Distribution:
    """Fills Messages for each group of collectors, one kind for each length that some collector of it takes."""

    def __init__(self, collectors: Sequence[Collector], form: WireFormat) -> None:
        self._collectors = collectors
        self._form = form
        self._builders: dict[tuple[Group, int], MessageBuilder] = {}
        self._limits: tuple[int, ...] = ()

    def add(self, records: Records, group: Group) -> None:
        """Put records into Messages for these collectors; full Messages are sent."""
        limits = tuple(collector.limit for collector in self._collectors)
        if self._limits != limits:  # the path of one has changed
            self.flush()
            self._limits, self._builders = limits, {}
        for limit in dict.fromkeys(limits[place] for place in group):
            builder = self._builders.get((group, limit))
            if builder is None:
                builder = self._builders[group, limit] = MessageBuilder(limit, self._form)
            self._put(group, limit, builder.add(records))
            if builder.too_long:  # not even alone in a message
                for collector in self._of(group, limit):
                    collector.dropped["too_long"] += builder.too_long
                builder.too_long = 0

    def flush(self) -> None:
        """Messages that are not full go out too."""
        for (group, limit), builder in self._builders.items():
            self._put(group, limit, builder.flush())

    def _put(self, group: Group, limit: int, messages: list[Messages]) -> None:
        if messages:
            for collector in self._of(group, limit):
                collector.put(messages)

    def _of(self, group: Group, limit: int) -> list[Collector]:
        """The collectors of a group that take Messages of this length."""
        return [self._collectors[place] for place in group if self._limits[place] == limit]
