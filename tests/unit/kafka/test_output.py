"""Rows as messages, keys and partitions, errors and their meaning, and the options of a client."""

import json

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import Key, known
from ulogd_tw.kafka import faults, settings
from ulogd_tw.kafka.faults import Events, NotSent
from ulogd_tw.kafka.formats import JsonRows, Terms
from ulogd_tw.kafka.packing import cuts, many, one_each
from ulogd_tw.kafka.row_keys import Anywhere, RowKeys, names
from ulogd_tw.kafka.statistics import PRODUCED, SENT, Statistics
from ulogd_tw.plugins.outputs.kafka import KAFKA

try:
    from hypothesis import strategies
except ImportError:
    strategies = None

SCHEMA = Schema([
    known("sourceIPv4Address"), known("sourceTransportPort"), known("octetDeltaCount"),
    Key("exporter", types.IPV4),
])  # fmt: skip


def batch(n=4, exporters=(1, 2), first=0):
    """Rows numbered in octetDeltaCount, of exporters in turn."""
    columns = {
        "sourceIPv4Address": np.full(n, 0x0A000001, np.uint32),
        "sourceTransportPort": np.arange(n, dtype=np.uint16),
        "octetDeltaCount": np.arange(first, first + n, dtype=np.uint64),
        "exporter": np.resize(np.array(exporters, np.uint32), n),
    }
    return Batch(SCHEMA, columns, n=n, now=0.0)


def keys(*words):
    """The keys of messages by these words of key=."""
    chosen = names(words)
    return RowKeys(chosen, Anywhere(chosen).find)


class RowsTests(SynchronousTestCase):
    """From batches to messages."""

    def test_one_row_a_message(self):
        """Each row is an object by itself, and its key has the values with | between."""
        found = JsonRows(Terms(0, 900, None), keys("exporter", "sourceTransportPort")).messages(batch(), batch(), 0)
        self.assertEqual(
            {"sourceIPv4Address": "10.0.0.1", "sourceTransportPort": 1, "octetDeltaCount": 1, "exporter": "0.0.0.2"},
            json.loads(found.messages[1]["value"]),
        )
        self.assertEqual(
            [b"0.0.0.1|0", b"0.0.0.2|1", b"0.0.0.1|2", b"0.0.0.2|3"], [one["key"] for one in found.messages]
        )

    def test_key_of_any_form(self):
        """5tuple finds the address of either family; a key that no row has is left out."""
        found = JsonRows(Terms(0, 900, None), keys("5tuple")).messages(batch(1), batch(1), 0)
        self.assertEqual(b"10.0.0.1|0", found.messages[0]["key"])

    def test_no_key(self):
        """Without key= messages have none, and rows go together wherever they fit."""
        found = JsonRows(Terms(3, 9000, None), keys()).messages(batch(), batch(), 0)
        self.assertEqual([3, 1], [one["value"].count(b"{") for one in found.messages])
        self.assertEqual([{"value"}] * 2, [set(one) for one in found.messages])

    def test_rows_of_an_exporter_together(self):
        """Messages of many rows are of one partition; each exporter has one."""
        exporters = range(1, 41)
        all_rows = batch(400, exporters)
        found = JsonRows(Terms(1000, 900_000, None), keys("exporter")).messages(all_rows, all_rows, 7)
        at = {}
        for message in found.messages:
            for line in message["value"].split(b"\n"):
                at.setdefault(json.loads(line)["exporter"], set()).add(message["partition"])
        self.assertEqual(40, len(at))
        self.assertEqual({1}, set(map(len, at.values())))
        self.assertEqual(set(range(7)), set.union(*at.values()))
        self.assertEqual(list(range(400)), sorted(np.concatenate(found.rows).tolist()))

    @given(
        strategies and strategies.lists(strategies.integers(1, 50), max_size=30),
        strategies and strategies.integers(1, 9),
        strategies and strategies.integers(1, 99),
    )
    def test_cuts(self, lengths, rows, octets):
        """Every row is in one message, in order; each has as many rows as fit, and no more unless it is one."""
        found = list(cuts(np.array(lengths, np.int64), rows, octets))
        self.assertEqual(list(range(len(lengths))), [row for start, end in found for row in range(start, end)])
        for start, end in found:
            self.assertTrue(end - start == 1 or (end - start <= rows and sum(lengths[start:end]) <= octets))
            full = end == len(lengths) or end - start == rows or sum(lengths[start : end + 1]) > octets
            self.assertTrue(full)

    def test_rows_of_what_came_back(self):
        """A message that comes back is found by its octets and its key."""
        packed = one_each(Octets.of([b"a", b"a", b"b"]), Octets.of([b"1", b"2", b"1"]))
        self.assertEqual([1], packed.rows_of({"value": b"a", "key": b"2"}).tolist())
        self.assertEqual([2], packed.rows_of({"value": b"b", "key": b"1"}).tolist())
        self.assertEqual([], packed.rows_of({"value": b"c", "key": None}).tolist())
        two = many(Octets.of([b"a", b"b", b"c"]), b"\n", np.array([1, 0, 1]), 10, 100)
        self.assertEqual([0, 2], two.rows_of({"value": b"a\nc", "key": None}).tolist())


class Sent:
    """A producer that takes some messages and refuses others, by what they say."""

    def __init__(self, answers):
        self.answers = answers
        self.sent = []

    def send(self, topic, messages):
        from ulogd_tw.kafka.sending import Rest

        self.sent.append([one["value"] for one in messages])
        return self.answers.pop(0)(messages) if self.answers else Rest()


class StoreTests(SynchronousTestCase):
    """One write of the output."""

    def setUp(self):
        self.output = KAFKA("kafka1")
        self.output.config.brokers, self.output.config.topic = ("localhost:1",), "flows"

    def test_only_the_rest_again(self):
        """After an error only the messages that were not taken are sent again; refused ones are told by their rows."""
        from ulogd_tw.kafka.sending import Rest

        sending = self.output._sending = Sent([
            lambda m: Rest(m[2:], [(m[0], "too large")], NotSent("_MSG_TIMED_OUT", "timed out")),
        ])  # fmt: skip
        self.assertRaises(NotSent, self.output.store, [batch(2), batch(2, first=2)], 1, False)
        refused = self.output.store([batch(2), batch(2, first=2)], 1, True)
        self.assertEqual([4, 2], list(map(len, sending.sent)))
        self.assertEqual(sending.sent[0][2:], sending.sent[1])
        self.assertEqual([(0, "too large")], refused.at)

    def test_keys(self):
        """With keys= objects have those keys only, by these names."""
        from ulogd_tw.core.resolve import Provided

        self.output.config.keys = ("sourceAddress", "octets")
        for name in self.output.config.keys:
            self.output.sources.add(name, Provided(SCHEMA.values()).recipes(name))
        sending = self.output._sending = Sent([])
        self.output.store([batch(1, first=5)], 1, False)
        self.assertEqual([{"sourceAddress": "10.0.0.1", "octets": 5}], [json.loads(v) for v in sending.sent[0]])


class SettingsTests(SynchronousTestCase):
    """From options to librdkafka's properties."""

    def config(self, **values):
        output = KAFKA("kafka1")
        for name, value in ({"brokers": ("b:1",), "topic": "t"} | values).items():
            setattr(output.config, name, value)
        return output.config

    def test_plain(self):
        self.assertEqual("PLAINTEXT", settings.common(self.config(), "k")["security.protocol"])

    def test_tls_and_sasl(self):
        """The password is the first line of its file."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("secret\nmore\n")
        config = self.config(tls=True, ssl_ca="/ca", user="u", pass_file=path, mechanism="SCRAM-SHA-256")
        found = settings.common(config, "k")
        self.assertEqual("SASL_SSL", found["security.protocol"])
        self.assertEqual(("/ca", "u", "secret", "SCRAM-SHA-256"), tuple(
            found[name] for name in ("ssl.ca.location", "sasl.username", "sasl.password", "sasl.mechanism")
        ))  # fmt: skip

    def test_mistakes(self):
        """What does not go together is one mistake at its option."""
        for option, values in {
            "user": {"user": "u"}, "ssl_ca": {"ssl_ca": "x"}, "ssl_cert": {"tls": True, "ssl_cert": "x"},
            "properties": {"properties": ("group.id=x",)}, "pass_file": {"user": "u", "pass_": "a", "pass_file": "b"},
        }.items():  # fmt: skip
            found = dict(settings.mistakes(self.config(**values), "KAFKA"))
            self.assertIn(option, found, values)
        self.assertEqual({}, dict(settings.mistakes(self.config(properties=("linger.ms=9",)), "KAFKA")))


class FaultsTests(SynchronousTestCase):
    """Errors of librdkafka."""

    def test_meaning(self):
        """By the code; a fatal error lets rows wait for the next producer, an unknown one for better times."""
        for code, reason in {
            "_MSG_TIMED_OUT": "away", "UNKNOWN_TOPIC_OR_PART": "topic", "TOPIC_AUTHORIZATION_FAILED": "permission",
            "_PURGE_QUEUE": "stopped", "WHAT_IS_THIS": "server",
        }.items():  # fmt: skip
            self.assertEqual(reason, faults.meaning(NotSent(code, "")).reason)
        self.assertEqual("away", faults.meaning(NotSent("UNKNOWN_PRODUCER_ID", "", True)).reason)
        self.assertIsNone(faults.meaning(ValueError()))

    def test_every_reason_is_counted(self):
        """Each fault has a counter."""
        reasons = {fault.reason for fault in faults._FAULTS.values()} | {"server", "away"}
        self.assertEqual(set(), reasons - {count.name for count in faults.COUNTS})

    def test_why_it_timed_out(self):
        """A time-out is told with the event behind it, until messages arrive again."""

        class Error:
            def name(self):
                return "_SSL"

            def str(self):
                return "certificate verify failed"

        told = []
        events = Events(told.append)
        events.take(Error())
        self.assertEqual("_SSL", events.explained(NotSent("_MSG_TIMED_OUT", "timed out")).code)
        self.assertEqual(["certificate verify failed"], told)
        events.clear()
        self.assertEqual("_MSG_TIMED_OUT", events.explained(NotSent("_MSG_TIMED_OUT", "timed out")).code)


class StatisticsTests(SynchronousTestCase):
    """librdkafka's statistics."""

    def test_counts_go_on(self):
        """A new producer begins at 0, our counts do not."""
        counters = Counters("KAFKA", False, SENT)
        statistics = Statistics(counters, PRODUCED)
        broker = {"state": "UP", "nodeid": 1, "rtt": {"avg": 2500}, "txretries": 1}
        told = {"type": "producer", "msg_cnt": 3, "txmsgs": 10, "txmsg_bytes": 100, "tx_bytes": 50,
                "brokers": {"a": broker, "b": {"state": "DOWN", "nodeid": 2}}}  # fmt: skip
        statistics.take(json.dumps(told))
        statistics.take(json.dumps(told | {"txmsgs": 15}))
        statistics.begin()
        statistics.take(json.dumps(told | {"txmsgs": 4}))
        figures = counters.figures
        self.assertEqual((19, 1, 2.5, 3), (figures["messages_sent"], figures["brokers_connected"],
                                           figures["broker_ms"], figures["messages_queued"]))  # fmt: skip
