"""Rules in a graph: rows of AGGREGATE, intervals, reloads, memory, and faults of the service."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.alerting.test_conditions import STACK
from ulogd_tw import config
from ulogd_tw.aggregation.interval import INTERVAL_START
from ulogd_tw.alerting.conditions import parse
from ulogd_tw.alerting.faults import Faults
from ulogd_tw.alerting.watch import Alerts
from ulogd_tw.built import Built
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key
from ulogd_tw.operating.events import Events

RULE = '[alert:a]\nwhen="octets by destinationAddress > 100 in 20s"\nmatch="dst net 10.0.0.0/8"\n'
BEGIN = 1_000_000


def rows(start, *sums):
    """What AGGREGATE emits for an interval: (last octet of 10.0.0.x, octets)."""
    keys = [Key("destinationAddress", types.IPV4, ((0, 12),)), Key("octets", types.UNSIGNED64), INTERVAL_START]
    columns = {
        "destinationAddress": np.array([0x0A000000 + place for place, _ in sums], np.uint32),
        "octets": np.array([octets for _, octets in sums], np.uint64),
        "interval_start": np.full(len(sums), start, np.uint32),
    }
    return Batch(Schema(keys), columns, n=len(sums), now=start)


class WatchTests(SynchronousTestCase):
    """`Alerts` with a clock."""

    def setUp(self):
        self.clock = Clock()
        self.events = Events(lambda: 0)
        built = self.built(RULE)
        self.ulogd = SimpleNamespace(
            graph=built.graph, events=self.events, state=None, clock=lambda: BEGIN + self.clock.seconds()
        )
        self.alerts = Alerts(self.ulogd, self.clock)
        self.alerts.turn_to(built.alerts)

    def built(self, text):
        path = Path(self.mktemp())
        path.write_text(STACK + text)
        return Built(config.load(str(path)), prepare=False)

    def emit(self, batch):
        for child in self.ulogd.graph.instances["agg1"].emit.__self__.children:
            if not hasattr(child, "plugin"):
                child.receive(batch)

    def pass_(self, seconds):
        self.clock.pump([0.25] * (4 * seconds))

    def states(self):
        return [
            (one["labels"]["destinationAddress"], one["state"], one["value"]) for one in self.alerts.listed()["alerts"]
        ]

    def test_intervals(self):
        """Nothing fires before the end of the interval; the window has the sum of two; it ends with them."""
        self.pass_(1)
        self.emit(rows(BEGIN, (1, 60), (2, 60)))
        self.pass_(3)
        self.assertEqual([], self.states())
        self.pass_(8)
        self.assertEqual([], self.states())
        self.emit(rows(BEGIN + 10, (1, 60)))
        self.pass_(10)
        self.assertEqual([("10.0.0.1", "firing", 120)], self.states())
        self.pass_(10)
        self.assertEqual([("10.0.0.1", "resolved", 120)], self.states())
        self.assertEqual(["alert_firing", "alert_resolved"], [event["kind"] for event in self.events.since()])

    def test_reload(self):
        """A rule without a change keeps its states and its rows; a changed one begins anew; a removed one is gone."""
        self.emit(rows(BEGIN, (1, 500)))
        self.pass_(12)
        self.assertEqual([("10.0.0.1", "firing", 500)], self.states())
        for text, left in ((RULE, 1), (RULE + "keep=1m\n", 0), ("", 0)):
            built = self.built(text)
            self.ulogd.graph = built.graph
            self.alerts.turn_to(built.alerts)
            self.assertEqual(left, len(self.states()), text)
        self.assertEqual([], self.alerts.listed()["rules"])

    def test_memory(self):
        """What a rule has seen before a restart is not new after it, from the first interval on."""
        place = Path(self.mktemp())
        place.mkdir()
        self.ulogd.state = SimpleNamespace(path=place)
        fired = []
        for sums in ([(1, 5), (2, 5)], [(1, 5), (3, 5)]):
            built = self.built('[alert:a]\nwhen="new destinationAddress"\nlearn=0\n')
            self.ulogd.graph = built.graph
            self.alerts = Alerts(self.ulogd, self.clock)
            self.alerts.turn_to(built.alerts)
            self.emit(rows(int(self.ulogd.clock()) // 10 * 10, *sums))
            self.pass_(12)
            fired.append(sorted(address for address, state, _ in self.states() if state == "firing"))
            self.alerts._write(self.alerts._saved())
        self.assertEqual([["10.0.0.1", "10.0.0.2"], ["10.0.0.3"]], fired)

    def test_columns(self):
        """The AGGREGATE hands on what a rule needs, also where no output asks for it."""
        plugin = self.ulogd.graph.instances["agg1"]
        self.assertLessEqual({"octets", "interval_start", "destinationAddress"}, plugin._columns_out(plugin.settings))


class FaultsTests(SynchronousTestCase):
    """Conditions about the service."""

    def setUp(self):
        self.counters = SimpleNamespace(lost=Counter(), dropped=Counter())
        self.factor, self.heard = 1, 100.0
        plugin = SimpleNamespace(
            instance="col1", counters=self.counters,
            sessions=lambda: [SimpleNamespace(peer="p", last_received=self.heard)],
            each_exporter=lambda: iter([{"exporter": "p", "domain": 0, "sampling_factor": self.factor}]),
        )  # fmt: skip
        node = SimpleNamespace(ident="col1", plugin=plugin)
        self.ulogd = SimpleNamespace(graph=SimpleNamespace(nodes=[node], inputs=[node]), events=Events(lambda: 0))

    def look(self, faults, now):
        for _ in faults.look(now):
            pass
        return {dict(labels).get("exporter", dict(labels)["instance"]): value for labels, value in faults.found.items()}

    def test_silent(self):
        """An exporter is silent from the limit on, until it is heard again."""
        faults = Faults(parse("exporter silent for 1m"), self.ulogd)
        self.assertEqual(({}, {"p": 60.0}), (self.look(faults, 159), self.look(faults, 160)))
        self.heard = 161.0
        self.assertEqual({}, self.look(faults, 165))

    def test_losses(self):
        """Rows lost within the window count; those from before the start do not."""
        self.counters.lost["sequence"] = 7
        faults = Faults(parse("lost > 2 in 10s"), self.ulogd)
        self.assertEqual({}, self.look(faults, 0))
        self.counters.lost["sequence"] = 9
        self.assertEqual({}, self.look(faults, 5))
        self.counters.lost["sequence"] = 10
        self.assertEqual({"col1": 3}, self.look(faults, 9))
        self.assertEqual({}, self.look(faults, 20))

    def test_changes(self):
        """Another sampling rate, another template under an old id: true at one look."""
        sampling, template = (Faults(parse(f"{what} changed"), self.ulogd) for what in ("sampling", "template"))
        self.assertEqual(({}, {}), (self.look(sampling, 0), self.look(template, 0)))
        self.factor = 100
        self.ulogd.events.add("template_conflict", "text", instance="col1", exporter="p")
        self.assertEqual(({"p": 100}, {"p": 1}), (self.look(sampling, 5), self.look(template, 5)))
        self.assertEqual(({}, {}), (self.look(sampling, 10), self.look(template, 10)))
