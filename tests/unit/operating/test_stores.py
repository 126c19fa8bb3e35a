"""Questions to the stores of a service: each row once, in a process that may read nothing else."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from twisted.internet import defer, reactor
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.unit.flows import made
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import Key, known
from ulogd_tw.flows import held, questions, stores
from ulogd_tw.flows.errors import Vanished
from ulogd_tw.operating import store_options
from ulogd_tw.operating.api import answers
from ulogd_tw.operating.api import stores as pages
from ulogd_tw.operating.question_log import NotLogged
from ulogd_tw.operating.store_process import NoAnswer
from ulogd_tw.operating.stores import NoSuchStore, Stores
from ulogd_tw.storing.parquet.directory import files
from ulogd_tw.storing.stored_columns import StoredColumn

KEYS = ("flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount", "destinationTransportPort")


def batch(*octets, end=0, port=443):
    """A batch of flows with these octets."""
    times = np.full(len(octets), made.T0 + end, np.uint64)
    columns = {
        KEYS[0]: times, KEYS[1]: times,
        KEYS[2]: np.array(octets, np.uint64), KEYS[3]: np.full(len(octets), port, np.uint16),
    }  # fmt: skip
    return Batch(Schema([known(name) for name in KEYS]), columns, n=len(octets), now=made.T0 / 1000)


class Output:
    """What a question needs of a PARQUET."""

    name = "PARQUET"
    run = "abc"
    makers = ()

    def __init__(self, directory, number=0):
        self.directory, self.write_number = directory, number

    def columns(self, batches):
        return [StoredColumn(known(name)) for name in KEYS]

    @staticmethod
    def find(batch, name):
        return held.found(batch, name)


class NodeOf:
    """The node of an output."""

    def __init__(self, ident, plugin):
        self.ident, self.plugin = ident, plugin


class Sink:
    """Takes an answer."""

    def __init__(self):
        self.octets, self.begun = b"", 0

    def begin(self, producer):
        self.begun += 1

    def write(self, octets):
        self.octets += octets


class StoresCase(TestCase):
    """A service with the store flows, in a directory."""

    timeout = 120

    def setUp(self):
        self.place = Path(tempfile.mkdtemp(prefix="utw-stores-"))
        self.addCleanup(shutil.rmtree, self.place)
        made.write(self.place / "raw", [made.flow(1, 1), made.flow(made.HOUR, 2)], instance="parquet1")
        self.output = Output(self.place / "raw", number=9)
        self.node = NodeOf("parquet1", self.output)
        self.queue = SimpleNamespace(node=self.node, rows=[], writes=False, present=lambda: list(self.queue.rows))
        self.values = SimpleNamespace(outputs=("parquet1",), memory=256 << 20, timeout=30.0, question_log="")
        self.ulogd = SimpleNamespace(
            graph=SimpleNamespace(nodes=[self.node]), queues=[self.queue], stores={"flows": self.values}
        )
        self.stores = Stores(self.ulogd, reactor)
        self.addCleanup(self.stores.stop)

    def ask(self, form="events", name="", **question):
        """Fires with the octets of an answer."""
        sink = Sink()
        asked = self.stores.ask(name, questions.of(question), form, {"user": "x"}, sink)
        return asked.addCallback(lambda end: (sink.octets, end))

    @defer.inlineCallbacks
    def total(self, **question):
        octets, _ = yield self.ask("json", sums="octets,flows", total=True, **question)
        found = json.loads(octets)
        return found["octets"], found["flows"]


class AnswerTests(StoresCase):
    """Answers of the process."""

    @defer.inlineCallbacks
    def test_files_and_waiting_rows(self):
        """Rows in files and rows that wait, in one answer; the process is kept for the next question."""
        self.assertEqual((3, 2), (yield self.total()))
        self.queue.rows = [batch(4, 8), batch(16, port=80)]
        self.assertEqual((31, 5), (yield self.total()))
        self.assertEqual((15, 4), (yield self.total(match="dst port 443")))
        self.assertEqual(1, len(self.stores._children._children))
        octets, end = yield self.ask(columns="octetDeltaCount", order="+time")
        events = [json.loads(line) for line in octets.splitlines()]
        rows = [row[2] for event in events for row in event.get("rows", ())]
        self.assertEqual([2, [1, 4, 8, 16]], [rows[-1], sorted(rows[:-1])])
        self.assertEqual((0, 5), (end["status"], end["rows"]))
        self.assertEqual(end, events[-1]["end"])

    @defer.inlineCallbacks
    def test_nothing_loaded_later(self):
        """The first rows of two hours and the first words without a key need no file outside of the stores."""
        rows = batch(4, 8)
        rows.columns[KEYS[1]] = rows.columns[KEYS[1]] + np.array([0, 3_600_000], np.uint64)
        self.queue.rows = [rows]
        self.assertEqual((15, 4), (yield self.total()))
        for question, reason in (({"by": "port"}, "no store has the key"), ({"match": "dpirt 443"}, "dpirt")):
            error = yield self.assertFailure(self.ask(**question), NoAnswer)
            self.assertIn(reason, str(error))

    @defer.inlineCallbacks
    def test_write_under_way(self):
        """The rows of a write under way are taken from memory: its file, which may be there already, is not read."""
        self.queue.rows, self.queue.writes, self.output.write_number = [batch(2)], True, 1
        names = [file.path.name for file in files(self.place / "raw")]
        self.assertEqual([".0.0.parquet", ".1.0.parquet"], sorted(name[-len(".0.0.parquet") :] for name in names))
        self.assertEqual((3, 2), (yield self.total()))
        self.queue.writes = False
        self.assertEqual((5, 3), (yield self.total()))

    @defer.inlineCallbacks
    def test_forms(self):
        """CSV, JSON and Arrow come as they are."""
        octets, _ = yield self.ask("csv", by="dstport", sums="octets")
        self.assertEqual(b"destinationTransportPort,octets\n443,3\n", octets)
        octets, _ = yield self.ask("json", by="srcip", sums="octets")
        self.assertEqual(b'{"sourceAddress":"192.0.2.1","octets":3}\n', octets)
        octets, _ = yield self.ask("arrow", by="srcip", sums="octets")
        self.assertEqual((b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"), (octets[:4], octets[-8:]))

    @defer.inlineCallbacks
    def test_refusals(self):
        """A question without an answer says why; the process goes on."""
        for question, text in (({"by": "srcas"}, "no store has the key bgpSourceAsNumber"), ({"name": "x"}, "x; ")):
            error = yield self.assertFailure(self.ask(**question), NoAnswer)
            self.assertIn(text, str(error))
        shutil.rmtree(self.place / "raw")
        error = yield self.assertFailure(self.ask(), NoAnswer)
        self.assertIn("nothing has been stored yet", str(error))

    @defer.inlineCallbacks
    def test_too_long(self):
        """A question that takes too long is ended, with its process; the next one has another."""
        self.values.timeout = 0.0001
        error = yield self.assertFailure(self.ask(), NoAnswer)
        self.assertIn("no answer within 0.0001 seconds", str(error))
        self.values.timeout = 30.0
        self.assertEqual((3, 2), (yield self.total()))

    @defer.inlineCallbacks
    def test_slow_reader(self):
        """A process whose last reader was slow to the end answers the next question."""
        self.assertEqual((3, 2), (yield self.total()))
        (child,) = self.stores._children._idle
        child.transport.pauseProducing()
        self.values.timeout = 10.0
        self.assertEqual((3, 2), (yield self.total()))
        self.assertEqual([child], self.stores._children._idle)

    @defer.inlineCallbacks
    def test_given_up(self):
        """A question that its asker gives up ends, and the next one is answered."""
        asked = self.ask()
        asked.cancel()
        yield self.assertFailure(asked, NoAnswer, defer.CancelledError)
        self.assertEqual((3, 2), (yield self.total()))

    @defer.inlineCallbacks
    def test_confined(self):
        """A file outside of the stores cannot be read, even if a store leads to it."""
        secret = made.write(self.place / "other", [made.flow(5, 1000)])
        file = files(secret)[0].path
        place = files(self.place / "raw")[0].path
        os.symlink(file, place.with_name(place.name.replace("-0-", "-0-9")))
        octets, end = yield self.ask("json", sums="octets", total=True)
        self.assertEqual(({"octets": 3}, 3), (json.loads(octets), end["status"]))
        self.assertIn("cannot be read", end["notes"][0])

    @defer.inlineCallbacks
    def test_question_log(self):
        """The log has who asked what and when, with mode 0600; without it there is no answer."""
        path = self.place / "questions"
        self.values.question_log = str(path)
        yield self.ask(by="srcip", match="dst port 443")
        line = json.loads(path.read_text())
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertEqual({"user": "x"}, line["asker"])
        asked = {"command": "flows", "store": "flows", "by": ["sourceAddress"], "match": "dst port 443"}
        self.assertEqual(asked, line["question"])
        self.values.question_log = str(self.place / "none" / "questions")
        error = yield self.assertFailure(self.ask(), NotLogged)
        self.assertIn("without it there is no answer", str(error))


class GroupTests(StoresCase):
    """The stores that there are."""

    @defer.inlineCallbacks
    def test_listed(self):
        """Size, hours, rows and the oldest hour of each output."""
        (found,) = yield self.stores.listed()
        (output,) = found["outputs"]
        octets = sum(file.octets for file in files(self.place / "raw"))
        hour = made.T0 // 1000
        expected = {"rows": 2, "hours": 2, "files": 2, "octets": octets, "oldest": hour, "newest": hour + 7200}
        self.assertEqual(("flows", expected), (found["name"], {name: output[name] for name in expected}))

    def test_names(self):
        """An output without a section is a store of its own; one that is not there is named with those that are."""
        other = NodeOf("parquet2", Output(self.place / "raw2"))
        self.ulogd.graph.nodes.append(other)
        self.assertEqual(["flows", "parquet2"], list(self.stores.groups()))
        self.assertEqual("parquet2", self.stores.chosen("parquet2").name)
        with self.assertRaisesRegex(NoSuchStore, "which store. there are flows, parquet2"):
            self.stores.chosen("")
        with self.assertRaisesRegex(NoSuchStore, "there is no store flow; did you mean flows"):
            self.stores.chosen("flow")
        self.ulogd.graph.nodes.clear()
        with self.assertRaisesRegex(NoSuchStore, "no stack has a PARQUET"):
            self.stores.chosen("")

    def test_mistake(self):
        """The name of no store is a mistake in the question: commands end with 2, not as where nothing is found."""
        refused = self.assertRaises(answers.Refused, pages._refused, Failure(NoSuchStore("there is no store flow")))
        self.assertEqual((400, "there is no store flow"), (refused.status, str(refused)))


class Maker:
    """An AGGREGATE with one open interval."""

    instance = "agg1"
    emitting = False
    columns = (*KEYS[2:], "interval_start")
    rollup = {"interval": 300, "by": [KEYS[3]], "time": "flow", "lateness": 60, "whole": True}

    def __init__(self, *batches):
        self.batches = batches
        self.counters = SimpleNamespace(rows_emitted=0)
        self.goes_on = 0

    def starts(self):
        return [(made.T0 + made.HOUR) // 1000]

    def peek(self, names):
        for one in self.batches:
            yield one
            self.counters.rows_emitted += self.goes_on
            self.goes_on = 0


class RollupTests(StoresCase):
    """A roll-up without a store of flows: its open intervals count."""

    ROLLED = ("destinationTransportPort", *made.SUMS)

    def setUp(self):
        super().setUp()
        start = Key("interval_start", types.SECONDS)
        rows = made.rolled([made.flow(1, 1), made.flow(2, 2)], ("destinationTransportPort",), 300_000)
        made.write(self.place / "r5", rows, self.ROLLED, Maker.rollup, "parquet5m")
        keys = [
            known("destinationTransportPort"),
            Key("octets", types.UNSIGNED64),
            Key("flows", types.UNSIGNED64),
            start,
        ]
        columns = {
            keys[0].name: np.array([443], np.uint16), "octets": np.array([8], np.uint64),
            "flows": np.array([4], np.uint64), "interval_start": np.array([(made.T0 + made.HOUR) // 1000], np.uint32),
        }  # fmt: skip
        self.maker = Maker(Batch(Schema(keys), columns, n=1, now=(made.T0 + made.HOUR) / 1000))
        self.output.directory = self.place / "r5"
        self.output.makers = (self.maker,)
        self.output.columns = lambda batches: list(stores.read(self.place / "r5").columns)

    @defer.inlineCallbacks
    def test_open_intervals(self):
        """Groups of open intervals are added to those in files."""
        self.assertEqual((11, 6), (yield self.total()))

    @defer.inlineCallbacks
    def test_copied_at_one_moment(self):
        """Groups that go out while they are copied are not counted twice: the question is asked anew."""
        self.maker.goes_on = 1
        prepared = []
        prepare = self.stores._prepared
        self.patch(self.stores, "_prepared", lambda *words: prepared.append(1) or prepare(*words))
        self.assertEqual((11, 6), (yield self.total()))
        self.assertEqual(2, len(prepared))

    @defer.inlineCallbacks
    def test_emission(self):
        """An emission that does not end is said, and the status is 3."""
        self.maker.emitting = True
        self.patch(self.stores, "_settled", lambda group: defer.succeed(None))
        _, end = yield self.ask(sums="octets", total=True)
        self.assertEqual(3, end["status"])
        self.assertIn("ends just now", end["notes"][0])


class MomentTests(StoresCase):
    """Which files belong to a moment."""

    def test_merged(self):
        """A file that was merged later may have rows of the queue: nobody can tell, so the question is asked anew."""
        file = files(self.place / "raw")[0]
        merged = file._replace(level=1)
        made_at = os.stat(file.path).st_mtime_ns
        self.assertTrue(held.Moment("x", "", "abc", 1, made_at + 1).has(merged))
        with self.assertRaises(Vanished):
            held.Moment("x", "", "abc", 1, made_at).has(merged)
        self.assertFalse(held.Moment("x", "", "abc", 0, 0).has(file))
        self.assertTrue(held.Moment("x", "", "other", 0, 0).has(file))


class OptionTests(StoresCase):
    """The section [store:NAME]."""

    def test_mistakes(self):
        """Each output must be a PARQUET of a stack, and the memory enough."""
        config = SimpleNamespace(
            instances=lambda: ["parquet1", "json1"], plugins_of=lambda ident: {"PARQUET" if ident[0] == "p" else "JSON"}
        )
        values = SimpleNamespace(outputs=("parquet1", "parquet2", "json1"), memory=1)
        found = dict(enumerate(store_options.mistakes("store:x", values, config)))
        self.assertIn("parquet2 is the id of no PARQUET in a stack; did you mean parquet1?", found[0][1])
        self.assertIn("json1 is the id of no PARQUET", found[1][1])
        self.assertEqual(("memory", 3), (found[2][0], len(found)))
