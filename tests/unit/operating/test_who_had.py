"""Who had an address, asked of the running service."""

import json
from pathlib import Path
from types import SimpleNamespace

from twisted.internet import defer, reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.unit.flows.nat_files import number
from tests.unit.flows.test_nat_batches import NOW, batch
from tests.unit.flows.test_who_had import INSIDE, MINUTE, OTHER, OUTSIDE, T, nfct
from ulogd_tw.flows.nat_batches import direct
from ulogd_tw.operating.question_log import NotLogged
from ulogd_tw.operating.store_process import NoAnswer
from ulogd_tw.operating.who_had import WhoHad, WrongQuestion
from ulogd_tw.storing.coverage import CoverageRecord
from ulogd_tw.transports.errors import NetlinkError

ASKED = {"address": OUTSIDE, "port": 4000, "at": T, "within": 0}


class Double(SimpleNamespace):
    """A node; each is another one."""

    __hash__ = object.__hash__


class WhoHadTests(TestCase):
    """A service with NFCT above one store, which has rows in its queue."""

    timeout = 120

    def setUp(self):
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.record = CoverageRecord(self.directory)
        self.record.begin(T - 100 * MINUTE)
        self.record.flushed(T + 2 * 86_400_000, {})
        self.now = T / 1000 + 86_400
        self.table, self.waiting = [], []
        self.input = Double(ident="ct1", plugin=SimpleNamespace(name="NFCT", connections=self.connections))
        self.output = Double(
            ident="pq1",
            plugin=SimpleNamespace(
                name="PARQUET", config=SimpleNamespace(directory=str(self.directory)), find=direct,
                sources=SimpleNamespace(recipes={"postNATSourceAddress": [1]}),
            ),
            above=lambda: {self.input, self.output},
        )  # fmt: skip
        queue = SimpleNamespace(node=self.output, output=self.output.plugin, present=lambda: self.waiting)
        self.ulogd = SimpleNamespace(graph=SimpleNamespace(outputs=[self.output]), queues=[queue], stores={})
        self.who_had = WhoHad(self.ulogd, now=lambda: self.now)
        self.addCleanup(self.who_had.stop)

    def connections(self, found):
        """As the input reads the kernel's table."""
        if isinstance(self.table, Exception):
            return defer.fail(self.table)
        for one in self.table:
            found(one)
        return defer.succeed(None)

    def ask(self, asker=None, **more):
        """The answer."""
        return self.who_had.answer(ASKED | more, asker or {"uid": 1})

    @defer.inlineCallbacks
    def test_places(self):
        """An open connection and a row that waits are answers as those of files are."""
        self.table = [batch([nfct(0, 0) | {"flowEndMilliseconds": None}], NOW)]
        self.waiting = [batch([nfct(0, MINUTE, OTHER, **{"orig.l4.dport": 80})], NOW)]
        found = yield self.ask()
        self.assertEqual([(INSIDE, "open"), (OTHER, "ended")], [(a["inside"], a["state"]) for a in found["answers"]])
        self.assertEqual((0, []), (found["status"], found["incomplete"]))
        self.assertEqual(1, (yield self.ask(port=9))["status"])

    @defer.inlineCallbacks
    def test_incomplete(self):
        """What was lost near the time is said, and makes the status 3."""
        self.record.flushed(T + 2 * 86_400_000 + 5000, {"ct1 lost.kernel": 3})
        found = yield self.ask(at=T + 2 * 86_400_000)
        self.assertEqual(3, found["status"])
        self.assertEqual(["3 lost: ct1 lost.kernel"], [gap["reason"] for gap in found["incomplete"]])

    @defer.inlineCallbacks
    def test_kernel_not_read(self):
        """Without the table of the kernel the answer may be incomplete, and says why."""
        self.table = NetlinkError(1, "Operation not permitted")
        found = yield self.ask()
        self.assertEqual(3, found["status"])
        self.assertIn("ct1", found["notes"][0])

    @defer.inlineCallbacks
    def test_question_log(self):
        """The question is in the log before the answer is given; no log, no answer."""
        log = Path(self.mktemp()).absolute()
        self.ulogd.stores = {
            "nat": SimpleNamespace(outputs=("pq1",), memory=1 << 28, timeout=60.0, question_log=str(log))
        }
        yield self.ask({"uid": 4711}, stores=["nat"])
        entry = json.loads(log.read_text())
        self.assertEqual(({"uid": 4711}, 0, OUTSIDE), (entry["asker"], entry["answers"], entry["question"]["address"]))
        yield self.ask({"uid": 4712})  # whatever store it names
        self.assertEqual(2, len(log.read_text().splitlines()))
        log.unlink()
        log.mkdir()
        yield self.assertFailure(self.ask(), NotLogged)

    @defer.inlineCallbacks
    def test_mistakes(self):
        """A question that is none is refused with its reason."""
        for wrong in (
            {"address": "x"}, {"port": -1}, {"port": 65536}, {"port": "80"}, {"at": None}, {"at": 1.5}, {"at": True},
            {"within": -1}, {"stores": "nat"}, {"stores": ["none"]}, {"longest": 1 << 62},
        ):  # fmt: skip
            yield self.assertFailure(self.ask(**wrong), WrongQuestion)

    @defer.inlineCallbacks
    def test_stores_without_addresses(self):
        """A store without addresses after NAT is not asked; without another there is nobody to ask."""
        self.output.plugin.sources.recipes = {"sourceAddress": [1], "postNATSourceAddress": []}
        yield self.assertFailure(self.ask(), WrongQuestion)

    @defer.inlineCallbacks
    def test_client_goes(self):
        """The process that reads for a client is ended when this goes; the next question has a new one."""
        asked = self.ask()
        yield deferLater(reactor, 0.05, lambda: None)
        asked.cancel()
        yield self.assertFailure(asked, defer.CancelledError, NoAnswer)
        self.assertEqual(1, (yield self.ask())["status"])

    def test_number(self):
        """The doubles have addresses as the questions have."""
        self.assertEqual(number(OUTSIDE) & 0xFFFF_FFFF, int.from_bytes(bytes([203, 0, 113, 1]), "big"))
