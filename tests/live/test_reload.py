"""A reload while exporters send: every record once, whatever part of the configuration changes."""

import json
import os
import random
import signal
import sqlite3
from functools import partial

from twisted.trial.unittest import TestCase

from tests.live.exporters import started
from tests.live.service import Service, ask, sleep, unaccounted
from tests.live.test_softflowd import _queue
from tests.support import free_port, wait_until

RECORDS, RATE = 300_000, 100_000
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[agg1]
key="protocolIdentifier"
interval=1
[j1]
file="{dir}/agg.json"
"""
STACKS = ("col1:COLLECTOR,agg1:AGGREGATE,j1:JSON",)


class Base(TestCase):
    """A service that is reloaded while exporters send."""

    timeout = 120

    def setUp(self):
        self.port = free_port("both")

    def service(self, stacks=STACKS, config=CONFIG, settings="", **keywords):
        config = config.replace("{port}", str(self.port))
        return Service(stacks, config, settings=f"reload=1\n{settings}", **keywords)

    def load(self, kind="udp", records=RECORDS, rate=RATE):
        """An exporter that sends."""
        return started(self.port, kind, records, rate)

    def finished(self, load):
        return json.loads(load.communicate(timeout=60)[0])

    def reload(self, service, edit, said="reloaded"):
        """Edit the file and send SIGHUP; the lines about the reload."""
        before = service.output().count(said)
        service.config.write_text(edit(service.config.read_text()))
        os.kill(service.pid, signal.SIGHUP)
        try:
            wait_until(lambda: service.output().count(said) > before, 20.0, said)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{service.output()[-3000:]}") from None
        return [line for line in service.output().splitlines() if said in line][-1]

    def while_sending(self, edit, *words, said="reloaded", after=None, **keywords):
        """Reload in the middle of a load; what was sent, the line, and the ended service."""
        with self.service(**keywords) as service:
            load = self.load(*words)
            sleep(1.5)
            line = self.reload(service, edit, said)
            if after is not None:
                sleep(0.5)
                self.reload(service, after, said)
            sent = self.finished(load)
            wait_until(lambda: _queue(self.port) == 0, what="all is read")
        self.assertEqual({}, unaccounted(service.all_counters()))
        self.assertNotIn("Traceback", service.output())
        self.assertNotIn("a bug", service.output())
        return sent, line, service

    def sums(self, service, name="agg.json"):
        """Flows and octets of the rows in a file."""
        rows = [json.loads(line) for line in (service.directory / name).read_text().splitlines()]
        return sum(row["flows"] for row in rows), sum(row["octets"] for row in rows)

    def assert_all(self, sent, service, name="agg.json"):
        self.assertEqual((sent["records"], sent["octets"]), self.sums(service, name), service.output()[-3000:])

    @staticmethod
    def patient(condition):
        """Wait a while; what is missing then is shown by the comparison."""
        try:
            wait_until(condition, 10.0)
        except AssertionError:
            pass


class ReloadTests(Base):
    """The sums in the files of the outputs are those that were sent."""

    def test_nothing_changed(self):
        sent, line, service = self.while_sending(lambda text: text + "\n# a comment\n")
        self.assertIn("nothing changed", line)
        self.assert_all(sent, service)
        self.assertEqual(sent["records"], service.counters("col1")["rows_received"])

    def test_unrelated_part(self):
        """Another stack at the same input is new; then it is gone."""
        more = "stack=col1:COLLECTOR,agg2:AGGREGATE,j2:JSON\n[agg1]"
        options = '[agg2]\nkey="ipVersion"\n[j2]\nfile="{dir}/second.json"\n'
        with self.service() as service:
            load = self.load()
            sleep(1.0)
            before = service.config.read_text()
            options = options.replace("{dir}", str(service.directory))
            line = self.reload(service, lambda text: text.replace("[col1]", more.replace("[agg1]", "[col1]")) + options)
            self.assertIn("agg2:AGGREGATE is new", line)
            sleep(1.0)
            line = self.reload(service, lambda text: before)
            self.assertIn("agg2:AGGREGATE is gone", line)
            sent = self.finished(load)
            wait_until(lambda: _queue(self.port) == 0, what="all is read")
        self.assert_all(sent, service)
        self.assertGreater(self.sums(service, "second.json")[0], RATE / 4)

    def test_aggregate(self):
        """Its groups are handed on first; rows go on in the new one."""
        sent, line, service = self.while_sending(lambda text: text.replace("interval=1", "interval=2"))
        self.assertIn("agg1:AGGREGATE is replaced, its groups are handed on first, since interval changed", line)
        self.assert_all(sent, service)

    def test_aggregate_with_state(self):
        """Its groups go on in the successor where they mean the same there, else they are handed on."""
        config = CONFIG.replace("interval=1", "interval=86400")
        for edit in (("86400", "86400\ntop=100"), ("86400", "1"), ("[j1]", "totals=last\n[j1]")):
            sent, line, service = self.while_sending(
                lambda text, edit=edit: text.replace(*edit), config=config, settings='state_dir="{dir}/state"'
            )
            self.assertIn("agg1:AGGREGATE is replaced", line)
            with service:  # the groups that were kept go on, and are handed on by this reload
                wait_until(lambda service=service: service.output().count("stacks run") == 2, 20.0, "it runs again")
                self.reload(service, lambda text: text.replace("interval=86400", "interval=1"))
                total = sent["records"], sent["octets"]
                self.patient(lambda total=total, service=service: self.sums(service) == total)
            self.assert_all(sent, service)

    def test_collector(self):
        """Its socket goes on, with what it holds."""
        sent, line, service = self.while_sending(lambda text: text.replace("[col1]", "[col1]\nmax_sessions=77"))
        self.assertIn("col1:COLLECTOR is replaced, since max_sessions changed", line)
        self.assert_all(sent, service)

    def test_output(self):
        """Another file from now on."""
        sent, line, service = self.while_sending(lambda text: text.replace("agg.json", "other.json"))
        self.assertIn("j1:JSON is replaced, since file changed", line)
        first, second = self.sums(service), self.sums(service, "other.json")
        self.assertEqual((sent["records"], sent["octets"]), tuple(map(sum, zip(first, second, strict=True))))

    def test_over_tcp(self):
        """A connection goes on while an AGGREGATE is replaced."""
        sent, _, service = self.while_sending(lambda text: text.replace("interval=1", "interval=2"), "tcp")
        self.assert_all(sent, service)
        self.assertEqual(1, service.counters("col1")["sessions"] + service.output().count("closed by the peer"))

    def test_more_keys_over_tcp(self):
        """A new output asks for other keys: the connection and its templates go on."""
        more = "stack=col1:COLLECTOR,all1:JSON\n[col1]"
        options = '[all1]\nfile="/dev/null"\n'
        sent, line, service = self.while_sending(lambda text: text.replace("[col1]", more) + options, "tcp")
        self.assertIn("all1:JSON is new", line)
        self.assert_all(sent, service)

    def test_mistake(self):
        """The old configuration runs on, and the log says why."""
        sent, line, service = self.while_sending(
            lambda text: text.replace("interval=1", "interval=often"), said="not reloaded"
        )
        self.assertIn("often", line)
        self.assert_all(sent, service)

    def test_renamed(self):
        """An input that was renamed goes on with its templates; back again, it counts nothing as lost."""
        sent, line, service = self.while_sending(
            lambda text: text.replace("col1", "colx"),
            after=lambda text: text.replace("colx", "col1"),
            stacks=("col1:COLLECTOR,j1:JSON",),
            settings='state_dir="{dir}/state"',
        )
        self.assertIn("colx:COLLECTOR is replaced, since its name changed", line)
        rows = [json.loads(line) for line in (service.directory / "agg.json").read_text().splitlines()]
        self.assertEqual(
            (sent["records"], sent["octets"]),
            (len(rows), sum(row["octetDeltaCount"] for row in rows)),
            service.output()[-2000:],
        )
        self.assertEqual({}, service.counters("col1")["lost"])

    def test_what_check_sees(self):
        """A directory that is missing is seen before anything is changed."""
        sent, line, service = self.while_sending(
            lambda text: text.replace("agg.json", "nodir/agg.json"), said="not reloaded"
        )
        self.assertIn("nodir", line)
        self.assert_all(sent, service)

    def test_left_out_before(self):
        """A stack that could not start is tried again, and is not said to be left out any more."""
        import socket

        stacks = (*STACKS, "col3:COLLECTOR,agg3:AGGREGATE,j1:JSON")
        with socket.create_server(("127.0.0.1", 0)) as other:
            config = f'{CONFIG}[col3]\nlisten="tcp:127.0.0.1:{other.getsockname()[1]}"\n[agg3]\nkey=sourceIPv4Address\n'
            service = self.service(stacks, config, settings='control_socket="{dir}/control"')
            service.start()
            self.addCleanup(service.stop)
            wait_until(lambda: "ulogd-tw status -s" in service.output(), 20.0, "the control socket")
            self.assertEqual(1, len(ask(service, "GET", "/api/v1/status")["left_out"]))
        line = self.reload(service, lambda text: text)
        self.assertIn("col3:COLLECTOR is new", line)
        # An answer can be a second old.
        wait_until(lambda: not ask(service, "GET", "/api/v1/status")["left_out"], 20.0, "it is not left out")
        self.assertEqual(2, len(ask(service, "GET", "/api/v1/status")["stacks"]))
        self.assertTrue(ask(service, "GET", "/readyz")["ready"])

    def test_address_in_use(self):
        """What cannot be opened leaves everything as it was."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:127.0.0.1:{other.getsockname()[1]}"
            sent, line, service = self.while_sending(
                lambda text: text.replace('[col1]\nlisten="', f'[col1]\nlisten="{taken} '), said="not reloaded"
            )
        self.assertIn("another program has it", line)
        self.assert_all(sent, service)


MANY_STACKS = (
    "col1:COLLECTOR,agg1:AGGREGATE,j1:JSON",
    "col1:COLLECTOR,agg3:AGGREGATE,sq1:SQLITE3",
    "col1:COLLECTOR,all1:MATCH,exp1:IPFIX",
    "col2:COLLECTOR,agg2:AGGREGATE,j2:JSON",
)
MANY = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[col2]
listen="tcp:127.0.0.1:{second}"
[agg1]
key="protocolIdentifier"
interval=1
[agg3]
key="sourceIPv4Address/8"
interval=1
[agg2]
key="protocolIdentifier"
interval=1
[all1]
match="octets >= 0"
[exp1]
collectors="tcp:127.0.0.1:{second}"
reconnect=0.1
spool="{dir}/exporter"
[j1]
file="{dir}/agg.json"
[j2]
file="{dir}/second.json"
[sq1]
db="{dir}/flows.sqlite3"
table=flows
create=1
"""
EDITS = (
    ("[agg1]\n", "[agg1]\nmax_keys=12345\n"),
    ("[agg3]\n", "[agg3]\ntop=1000\n"),
    ("[agg2]\n", "[agg2]\ntop=1000\n"),
    ('match="octets >= 0"', 'match="packets >= 0"'),
    ("[j1]\n", "[j1]\nsync=1\n"),
    ("[sq1]\n", "[sq1]\nqueue_rows=500000\n"),
    ("[exp1]\n", "[exp1]\nqueue_rows=600000\n"),
    ("stack=col1:COLLECTOR,agg3:AGGREGATE,sq1:SQLITE3", "stack=col1:COLLECTOR,all1:MATCH,agg3:AGGREGATE,sq1:SQLITE3"),
)
"""Each can be made and taken back at any time."""


class ManyTests(Base):
    """Reload after reload."""

    timeout = 240

    def test_many(self):
        """Random changes, two exporters over UDP and TCP, and an exporter of our own: each record once everywhere."""
        choice = random.Random(17)
        config = MANY.replace("{second}", str(free_port("tcp")))
        made = set()
        with self.service(MANY_STACKS, config) as service:
            loads = [self.load("udp", 400_000, 40_000), self.load("tcp", 200_000, 20_000)]
            sleep(0.5)
            lines = []
            while any(load.poll() is None for load in loads):
                edits = choice.sample(range(len(EDITS)), choice.randint(1, 3))
                made ^= set(edits)
                edit = partial(_edited, edits=edits, made=made)
                lines.append(self.reload(service, edit, "#info] reloaded"))
            sent = [self.finished(load) for load in loads]
            wait_until(lambda: _queue(self.port) == 0, what="all is read")
            total = sum(each["records"] for each in sent), sum(each["octets"] for each in sent)
            self.patient(lambda: self.sums(service, "second.json") == total)
        self.assertEqual({}, unaccounted(service.all_counters()))
        for wrong in ("Traceback", "a bug", "not reloaded"):
            self.assertNotIn(wrong, service.output())
        database = sqlite3.connect(service.directory / "flows.sqlite3")
        self.assertEqual(total, database.execute("select sum(flows), sum(octets) from flows").fetchone())
        database.close()
        self.assertEqual([total, total], [self.sums(service, name) for name in ("agg.json", "second.json")])
        self.assertGreater(len(lines), 4)


def _edited(text, edits, made):
    for number in edits:
        former, new = EDITS[number]
        text = text.replace(former, new) if number in made else text.replace(new, former)
    return text
