"""What SQL outputs share: names of columns, and batches that are tried again until they are written or given up."""

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.sql_rows import batch_of, numbers, output, told
from ulogd_tw.core import types
from ulogd_tw.core.conversions import ntp_to_integer
from ulogd_tw.core.errors import NotWritten, StartError
from ulogd_tw.core.keys import Key, known, registry
from ulogd_tw.storing import columns as sqlcolumns
from ulogd_tw.storing.columns import TableColumn, Target, column_name, key_names
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.sql_output import COMMON, SQLOutput

AWAY = Fault("away", transient=True)
DENIED = Fault("permission", "grant it")


class Away(Exception):
    """The driver's error for a database that is away."""


class Denied(Exception):
    """The driver's error for a missing privilege."""


class World(Database):
    """A database that does what a script says: one entry an attempt, an exception or what was refused."""

    driver = "sqlite3"

    def __init__(self, script):
        super().__init__("flows", "db")
        self.script = script
        self.connections = {}
        self.tries = []
        self.interrupted = 0

    def fault(self, error):
        return {Away: AWAY, Denied: DENIED}.get(type(error))

    def interrupt(self):
        self.interrupted += 1


class SQL(SQLOutput):
    """The real output before a scripted database, without threads."""

    name = "SQL"
    options = COMMON
    where = "world"

    def __init__(self, *arguments):
        self.script = []
        super().__init__(*arguments)
        self.reactor = Clock()
        self.limited._clock = self.reactor.seconds
        self.writer.write = self.next
        self.writer.stored = lambda pool, number: self.script.pop(0)
        self.writer.disconnect = lambda pool: None

    def database_of(self):
        return World(self.script)

    def _make_pool(self):
        self.pool = self.database

    def _close_pool(self):
        self.pool = None

    def in_thread(self, call, *arguments):
        return defer.maybeDeferred(call, *arguments)

    def next(self, pool, batch, number, again):
        """What the script says of this attempt."""
        self.database.tries.append((self.reactor.seconds(), number, again))
        step = self.script.pop(0) if self.script else Refused()
        if isinstance(step, Exception):
            raise step
        return step


class RetryTests(SynchronousTestCase):
    """Attempts, pauses, and what is told of them."""

    def setUp(self):
        self.told = told(self)

    def opened(self, **options):
        made = output(SQL, table="flows", create=True, **options)
        made.existing = []
        made.open()
        made.database.tries.clear()
        return made

    def test_at_once_then_slower(self):
        """A batch that failed is tried again at once, then after 0.1 s, doubled up to `reconnect`, as a repetition."""
        made = self.opened(reconnect=0.5)
        made.script += [Away()] * 6
        writing = made.write(numbers(0, 3))
        made.reactor.pump([0.01] * 300)
        self.successResultOf(writing)
        times = [round(time, 2) for time, _, _ in made.database.tries]
        pauses = [round(b - a, 2) for a, b in zip(times, times[1:], strict=False)]
        for pause, expected in zip(pauses, [0, 0.1, 0.2, 0.4, 0.5, 0.5], strict=True):
            self.assertApproximates(pause, expected, 0.011)
        self.assertEqual([(n, again) for _, n, again in made.database.tries], [(1, False)] + [(1, True)] * 6)

    def test_said_once_a_minute(self):
        """One line when a database goes away, one a minute while it is, one when it is back."""
        made = self.opened()
        made.script += [Away("gone")] * 40
        writing = made.write(numbers(0, 3))
        made.reactor.pump([0.1] * 900)
        self.successResultOf(writing)
        self.assertEqual(self.told[0], "db: world: gone; rows wait")
        self.assertRegex(self.told[1], r"^db: world: gone; rows wait \(\d+ more since the last time\)$")
        self.assertRegex(self.told[2], "accepts rows again")
        self.assertEqual(len(self.told), 3)
        self.assertEqual(made.counters.errors, {"away": 40})

    def test_idle_connection(self):
        """A connection that died while nothing was written is nothing to tell."""
        made = self.opened()
        made.script.append(Away())
        self.successResultOf(made.write(numbers(0, 3)))
        self.assertEqual(self.told, [])

    def test_remedy(self):
        """A database that refuses is told with what to do, and tried again too."""
        made = self.opened()
        made.script += [Denied("no"), Denied("no")]
        writing = made.write(numbers(0, 3))
        self.assertEqual(self.told, ["db: world: no; grant it; rows wait"])
        made.reactor.advance(0.1)
        self.successResultOf(writing)

    def test_a_fault_of_ours(self):
        """An exception that is not the driver's is not tried again."""
        made = self.opened()
        made.script.append(ZeroDivisionError())
        self.failureResultOf(made.write(numbers(0, 3)), ZeroDivisionError)

    def test_stop_while_away(self):
        """`stop` ends the attempts, and the batch is given back."""
        made = self.opened()
        made.script += [Away()] * 9
        writing = made.write(numbers(0, 3))
        stopping = made.stop()
        self.failureResultOf(writing, NotWritten)
        self.successResultOf(stopping)
        self.assertEqual(made.reactor.getDelayedCalls(), [])

    def test_state(self):
        """Down with what the database said, until it accepts rows again; an idle connection that died is no outage."""
        made = self.opened()
        self.assertEqual("ok", made.state().word)
        made.script += [Away("gone")] * 3
        writing = made.write(numbers(0, 3))
        self.assertEqual(("down", ("world: gone",)), made.state())
        made.reactor.pump([60] * 3)
        self.successResultOf(writing)
        self.assertEqual("ok", made.state().word)

    def test_stop_lets_a_write_finish(self):
        """A write under way has a moment; then its connection is cut, and the batch given back if it is not there."""
        for found, error in ((None, NotWritten), (Refused(2), None)):
            made = self.opened()
            attempt = defer.Deferred()
            made.writer.write = lambda *_, a=attempt: a
            writing, stopping = made.write(numbers(0, 3)), made.stop()
            made.reactor.advance(1.9)
            self.assertNoResult(stopping)
            self.assertEqual(made.database.interrupted, 0)
            made.reactor.advance(0.1)
            self.assertEqual(made.database.interrupted, 1)
            made.script.append(found)
            attempt.errback(Away())
            self.successResultOf(stopping)
            if error:
                self.failureResultOf(writing, error)
            else:
                self.successResultOf(writing)
                self.assertEqual(made.counters.dropped, {"refused": 2})

    def test_reconnect_0(self):
        """With reconnect=0 nothing is tried again."""
        made = self.opened(reconnect=0)
        made.script.append(Away())
        self.failureResultOf(made.write(numbers(0, 3)), NotWritten)
        self.successResultOf(made.write(numbers(0, 3)))

    def test_refused(self):
        """Refused rows are counted, and told once a minute with their reasons."""
        made = self.opened()
        for _ in range(2):
            refused = Refused()
            refused.add("too long", 1)
            refused.add("too long", 1)
            made.script.append(refused)
            self.successResultOf(made.write(numbers(0, 3)))
        self.assertEqual(made.counters.dropped, {"refused": 4})
        self.assertEqual(self.told, ["db: 2 rows do not fit table flows, dropped: too long (2 rows)"])

    def test_away_at_start(self):
        """A database that is away at the start is no error; one that refuses is."""
        made = output(SQL, table="flows", create=True)
        made.look = lambda: made.next(None, None, 0, False)
        made.script += [Away("gone"), Away("gone"), Denied("no")]
        made.prepare()
        self.assertIsNone(made.existing)
        self.successResultOf(made.open())
        self.assertEqual(self.told, ["db: world: gone; rows wait"])
        self.failureResultOf(made.open(), StartError)

    def test_slow_at_start(self):
        """One that does not answer holds the start up for a few seconds at most."""
        made = output(SQL, table="flows", create=True)
        answer = defer.Deferred()
        made.writer.write = lambda *_: answer
        opening = made.open()
        made.reactor.advance(4)
        self.successResultOf(opening)
        answer.errback(Away())
        self.assertEqual(made.reactor.getDelayedCalls(), [])

    def test_away_is_waited_for_once(self):
        """One that was away while the stacks were built does not hold up the others again."""
        made = output(SQL, table="flows", create=True)
        made.look = lambda: made.next(None, None, 0, False)
        made.script.append(Away("timed out"))
        made.prepare()
        made.writer.write = lambda *_: defer.Deferred()
        opening = made.open()
        made.reactor.advance(0)
        self.successResultOf(opening)


class ColumnTests(SynchronousTestCase):
    """Names of columns and keys."""

    def test_exact_name_first(self):
        """An exact name goes before the one with dots."""
        self.assertEqual(key_names("exporter_port"), ("exporter_port",))
        self.assertEqual(key_names("orig_ip_saddr"), ("orig.ip.saddr",))
        self.assertEqual(key_names("raw_mac_len"), ("raw.mac_len",))
        self.assertEqual(key_names("interval_start"), ("interval_start", "interval.start"))

    def test_made_columns_are_read_again(self):
        """The column made for a key may mean that key at the next start, and no other but one of the same column."""
        for name in registry.names():
            found = key_names(column_name(name))
            self.assertIn(name, found)
            self.assertEqual({column_name(name)}, {column_name(other) for other in found})

    def test_two_keys_of_one_column(self):
        """``src_as`` is a key of NetFlow v5, and the column of GROUP's ``src.as``: it takes what comes."""
        (target,) = sqlcolumns.all_targets("t", [TableColumn("src_as")], {}, skip_first=False)
        self.assertEqual(("src_as", "src.as"), target.keys)

    def test_first_column(self):
        """Where a database numbers rows itself, a first column that is no key is left alone."""
        columns = [TableColumn("row"), TableColumn("orig_ip_saddr")]
        found = sqlcolumns.all_targets("t", columns, {}, skip_first=True)
        self.assertEqual(found[0], Target("row", ("row",), optional=True))
        self.assertEqual(found[1], Target("orig_ip_saddr", ("orig.ip.saddr",)))
        self.assertFalse(sqlcolumns.all_targets("t", columns, {}, skip_first=False)[0].optional)
        with self.assertRaises(TableError):
            sqlcolumns.all_targets("t", [TableColumn("row", automatic=True)], {}, skip_first=True)

    def test_offered_keys_go_first(self):
        """A key that reaches the output goes before another that the column could mean."""
        offered = {"orig_ip.saddr": Key("orig_ip.saddr", types.STRING)}
        found = sqlcolumns.all_targets("t", [TableColumn("orig_ip_saddr")], offered, skip_first=False)
        self.assertEqual(found[0].keys, ("orig_ip.saddr",))

    def test_ntp_times(self):
        """NTP times of both eras as integers since 1970."""
        half = 1 << 31
        batch = batch_of((known("flowStartMicroseconds"), [2208988800 << 32 | half, half, (2208988800 - 1) << 32]))
        found = ntp_to_integer(batch.columns["flowStartMicroseconds"], 10**6).tolist()
        self.assertEqual(found, [500_000, (2085978496 * 10**6) + 500_000, ((1 << 32) - 1) * 10**6])
