"""Collectors exchange addresses and names over kills: every record is stored, or counted as lost, exactly once."""

import time
from collections import Counter

from tests.live.service import Service
from tests.live.test_state import STATE, Exporter, KilledCase


class ExchangedTests(KilledCase):
    """Collectors exchange their addresses and their names, and have the former ones again, while exporters send."""

    KINDS = ("ipfix", "v5")

    def run_of(self, ports, end, names=("ipfix", "v5")):
        """One run of collectors with these ports and names, ended by `end`."""
        stacks = [f"{name}:COLLECTOR,db_{name}:SQLITE3" for name in names]
        parts = [f'[{name}]\nlisten="udp:127.0.0.1:{port}"' for name, port in zip(names, ports, strict=True)]
        parts += [f'[db_{name}]\ndb="{{dir}}/{name}.sqlite3"\ntable="flows"\ncreate=1\nkeys="protocolIdentifier"'
                  for name in names]  # fmt: skip
        (self.directory / "stats.json").unlink(missing_ok=True)
        with Service(stacks, "\n".join(parts), directory=self.directory, settings=STATE) as service:
            for exporter in self.exporters:
                exporter.again = True  # a new session knows no template
                if exporter.ident is None:
                    exporter.start()
            for name in names:
                service.wait_for(name, "messages_received", 100)  # its losses over the restart are counted by then
            time.sleep(0.3)
            end(service)
            for counted in service.all_counters().values():
                self.lost.update(counted["lost"])

    def end_all(self, service):
        """The exporters end, and then the service."""
        for exporter in self.exporters:
            exporter.end()
        time.sleep(0.3)
        service.stop()

    def test_exchanged(self):
        """Each record is stored or lost, once: what a collector knew before another had its address counts no more."""
        self.lost = Counter()
        one, two = self.ports.values()
        self.exporters = [Exporter(kind, port) for kind, port in self.ports.items()]
        for ports, names in (
            ((one, two), ("ipfix", "v5")), ((two, one), ("ipfix", "v5")), ((one, two), ("ipfix", "v5")),
            ((one, two), ("x", "v5")), ((one, two), ("ipfix", "v5")),
        ):  # fmt: skip
            self.run_of(ports, self.kill, names)
        self.run_of((one, two), self.end_all)
        stored = sum(self.stored(name) for name in ("ipfix", "v5", "x"))
        sent = sum(exporter.sent for exporter in self.exporters)
        self.assertEqual(sent, stored + self.lost["restart"] + self.lost["unsaved"], (stored, self.lost))
        self.assertEqual(0, self.lost["sequence"])
