"""PARQUET: its columns by stack, its checks, and the rows that it stores, as DuckDB reads them."""

import errno
import os
import subprocess
from pathlib import Path
from unittest import mock

import duckdb
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import NOON, flows, ports, rows
from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.errors import NotWritten
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Provided
from ulogd_tw.plugins.outputs.parquet import PARQUET
from ulogd_tw.storing.parquet import description
from ulogd_tw.storing.parquet.directory import files

MS = NOON * 1000


def built(stack, section="", *more):
    """The configuration of one stack that ends in pq:PARQUET."""
    lines = ["[global]", f"stack={stack}", "[pq]", "directory=/nowhere/store", section, *more]
    return Built(config.parse("\n".join(lines), "test.conf"), prepare=False)


def wanted(stack, section="", *more):
    """The PARQUET of such a configuration, its columns and its order."""
    graph = built(stack, section, *more).graph
    output = graph.outputs[0].plugin
    columns = output.columns(())
    return output, [column.name for column in columns], output.description(columns)


class KeysTests(SynchronousTestCase):
    """The columns where none are chosen."""

    def test_collector(self):
        """Every key of flows can come from an exporter."""
        _, names, described = wanted("c:COLLECTOR,pq:PARQUET", "", "[c]", "listen=udp:127.0.0.1:4739")
        for name in ("exporter", "sourceAddress", "octets", "postNATSourceAddress", "flowEndMilliseconds"):
            self.assertIn(name, names)
        self.assertEqual(described.order, ("sourceAddress", "destinationAddress"))

    def test_nfct(self):
        """A NAT log is sorted by the address and port that others saw."""
        _, names, described = wanted("n:NFCT,pq:PARQUET")
        self.assertIn("postNAPTSourceTransportPort", names)
        self.assertNotIn("exporter", names)
        self.assertEqual(described.order, ("postNATSourceAddress", "postNAPTSourceTransportPort"))

    def test_aggregate(self):
        """All columns of an AGGREGATE, its times under the names of flows; store.json has its interval and keys."""
        section = ("[a]", "key=sourceAddress/24:48,protocolIdentifier", "interval=300", "time=flow")
        output, names, described = wanted("d:DEMO,a:AGGREGATE,pq:PARQUET", "", *section)
        self.assertEqual(
            set(names),
            {"sourceAddress/24:48", "protocolIdentifier", "octets", "packets", "flows", "reply_octets", "reply_packets",
             "interval_start", "flowStartMilliseconds", "flowEndMilliseconds"},
        )  # fmt: skip
        self.assertEqual(described.rollup["interval"], 300)
        self.assertEqual(described.rollup["by"], ["sourceAddress/24:48", "protocolIdentifier"])
        self.assertEqual((described.rollup["time"], described.rollup["whole"]), ("flow", True))
        columns = {column.name: column.sql for column in output.columns(())}
        self.assertEqual((columns["sourceAddress/24:48"], columns["flows"]), ("UUID", "UBIGINT"))
        *_, described = wanted("d:DEMO,a:AGGREGATE,pq:PARQUET", "", "[a]", "top=10")
        self.assertFalse(described.rollup["whole"])

    def test_raw_and_sums(self):
        """A store of flows has no interval."""
        *_, described = wanted("d:DEMO,pq:PARQUET")
        self.assertEqual(dict(described.rollup), {})

    def test_chosen(self):
        """Chosen keys, and the times."""
        _, names, described = wanted("d:DEMO,pq:PARQUET", "keys=octets,sourceAddress\norder=octets")
        self.assertEqual(names, ["octets", "sourceAddress", "flowStartMilliseconds", "flowEndMilliseconds"])
        self.assertEqual(described.order, ("octets",))


class CheckTests(SynchronousTestCase):
    """What --check says."""

    def texts(self, *section, stack="d:DEMO,pq:PARQUET"):
        return "\n".join(map(str, built(stack, "\n".join(section)).mistakes))

    def test_no_limit(self):
        """Without retain and max_size it remarks that nothing is deleted."""
        self.assertIn("neither retain nor max_size", self.texts())
        self.assertEqual("", self.texts("retain=30d"))
        self.assertEqual("", self.texts("max_size=1G"))

    def test_sums_that_answer_nothing(self):
        """A roll-up of [store:NAME] that no question can use is remarked, with the option to change."""
        for section, words in (
            (
                "time=arrival",
                "pq answers no question about a time, as its sums are those of arrival: write time=flow in [a]",
            ),
            ("time=flow\ntop=10", "pq answers no question with keys or a filter, as top"),
            ("time=flow\noverflow=fold", "pq answers no question with keys or a filter, as top"),
            ("time=arrival\nage=60", "pq answers no question about a time, as age and window make no intervals"),
            ("time=flow", ""),
            ("time=spread", ""),
        ):
            found = self.texts(
                "retain=30d",
                "[a]",
                "key=sourceAddress",
                section,
                '[store:s]\noutputs="pq"',
                stack="d:DEMO,a:AGGREGATE,pq:PARQUET",
            )
            self.assertEqual(bool(words), bool(found), found)
            self.assertIn(words and f"[store:s] outputs: {words}", found)
        self.assertEqual("", self.texts("retain=30d", '[store:s]\noutputs="pq"'))

    def test_mistakes(self):
        """Keys and order that cannot be."""
        for section, words in (
            ("keys=arrival", "arrival is a column already"),
            ("keys=octets\norder=packets", "packets is not in keys="),
            ("keys=octets\norder=octet", "did you mean octets?"),
            ("keys=nosuch", "needs nosuch"),
            ("min_free=101%", "percent"),
            ("compression=zip", "zip"),
        ):
            self.assertIn(words, self.texts("retain=1d", section), section)

    def test_missing_library(self):
        """Without DuckDB the stack cannot run, and the command that brings it is there."""
        with mock.patch("ulogd_tw.plugins.outputs.parquet.is_there", lambda library: False):
            self.assertIn("install duckdb", self.texts("retain=1d"))

    def test_no_parent(self):
        """A directory that cannot be made is an obstacle; one that is there, or can be made, is none."""
        (pq,) = [node.plugin for node in built("d:DEMO,pq:PARQUET").graph.outputs]
        self.assertEqual([option for option, *_ in pq.obstacles()], ["directory"])
        for name in ("new", "."):
            made = PARQUET("pq", Options(PARQUET.all_options(), {"directory": name}))
            self.assertEqual(list(made.obstacles()), [])


class StoreTests(SynchronousTestCase):
    """An output whose thread is this one."""

    def setUp(self):
        self.world = Clock()
        self.place = Path(self.mktemp())
        self.out = self.output()

    def output(self, state=None, **options):
        """An open output for the flows of the tests; `state` is its directory in state_dir."""
        world = self.world

        class Tested(PARQUET):
            reactor = world
            in_thread = staticmethod(defer.execute)

        values = {"directory": str(self.place), "min_free": 0.0} | options
        made = Tested("pq1", Options(PARQUET.all_options(), values))
        asked = made.requests_of(None)
        for batch in (flows([MS]), flows([MS], ipv6=True)):
            for name in asked:
                if recipes := Provided([*batch.schema.values(), known("record_kind")]).recipes(name):
                    made.sources.add(name, recipes)
        if state is not None:
            made.keep_state(state, 1.0)
        self.successResultOf(made.open())
        self.addCleanup(made.stop)
        return made

    def write(self, *batches, out=None):
        waiting = (out or self.out).write_together(batches)
        self.addCleanup(waiting.addErrback, lambda failure: failure.trap(NotWritten))
        return waiting

    def test_rows(self):
        """Rows of both families are in one file once the write is done; figures count files and odd times."""
        self.successResultOf(self.write(flows([MS, None]), flows([MS], first=2, ipv6=True)))
        self.assertEqual(ports(self.place), [0, 1, 2])
        figures = self.out.counters.figures
        self.assertEqual((figures["files_written"], figures["odd_time"]), (1, 1))
        self.assertEqual(self.out.state().word, "ok")

    def test_description(self):
        """store.json names the columns that the files have."""
        self.successResultOf(self.write(flows([MS])))
        described = description.read(self.place)
        there = rows(self.place, "select column_name from (describe t)")
        self.assertEqual([(column.name,) for column in described.columns], there[:-1])
        self.assertEqual((there[-1], described.instance), (("arrival",), "pq1"))

    def test_options_records(self):
        """Options records are no flows: they are left out, and counted as filtered."""
        batch = flows([MS, MS])
        kinds = Coded(batch.columns["sourceTransportPort"] % 2, [b"data", b"options"])
        self.successResultOf(self.write(batch.with_columns({known("record_kind"): kinds})))
        self.assertEqual(ports(self.place), [0])
        self.assertEqual(self.out.counters.rows_filtered, 1)

    def test_gone(self):
        """While the directory is gone rows wait and the state says so; when it is back they are written."""
        self.successResultOf(self.write(flows([MS])))
        away = self.place.with_name("away")
        os.rename(self.place, away)
        waiting = self.write(flows([MS], first=1))
        self.world.pump([1.0] * 10)
        self.assertNoResult(waiting)
        self.assertFalse(self.place.exists())
        self.assertEqual(self.out.state().word, "down")
        self.assertGreater(self.out.counters.errors["gone"], 2)
        os.rename(away, self.place)
        self.world.pump([1.0] * 3)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [0, 1])
        self.assertEqual(self.out.state().word, "ok")

    def test_trouble_that_is_over_before_rows_come(self):
        """A second output is down while the first one writes there; it is ok soon after that one ends."""
        second = self.output()
        second.wake(0.0)
        self.assertEqual((second.state().word, "another output" in second.state().reasons[0]), ("down", True))
        self.successResultOf(self.out.stop())
        second.wake(5.0)
        self.assertEqual(second.state().word, "ok")

    def test_new_directory(self):
        """A directory that the administrator makes anew is a store again."""
        self.successResultOf(self.write(flows([MS])))
        os.rename(self.place, self.place.with_name("away2"))
        waiting = self.write(flows([MS], first=1))
        self.place.mkdir()
        self.world.pump([1.0] * 3)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [1])
        self.assertIsNotNone(description.read(self.place))

    def restarted(self, state, **options):
        """The output of another process, which keeps its state."""
        self.successResultOf(self.out.stop())
        self.out = self.output(state, **options)
        return self.out

    def test_not_mounted(self):
        """After a restart an empty place is not the store: rows wait, and are written when the store is back."""
        state = Path(self.mktemp())
        state.mkdir()
        self.successResultOf(self.write(flows([MS]), out=self.restarted(state)))
        away = self.place.with_name("away3")
        os.rename(self.place, away)
        for there in (False, True):  # nothing, and the empty directory of a mount point
            if there:
                self.place.mkdir()
            out = self.restarted(state)
            (reason,) = out.state().reasons
            self.assertIn("is not the store that was written before" if there else "is gone", reason)
            waiting = self.write(flows([MS], first=1))
            self.world.pump([1.0] * 5)
            self.assertNoResult(waiting)
            self.assertGreater(out.counters.errors["gone"], 1)
            self.assertEqual(([], there), (list(self.place.glob("*")), self.place.exists()))
        self.place.rmdir()
        os.rename(away, self.place)
        self.world.pump([1.0] * 3)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [0, 1])

    def test_unmounted_while_it_runs(self):
        """Without state_dir too: an empty directory on another file system is not the store, one on the same is."""
        self.successResultOf(self.write(flows([MS])))
        os.rename(self.place, self.place.with_name("away5"))
        self.place.mkdir()
        device = os.stat(self.place).st_dev
        self.out._identity._device = device + 1
        waiting = self.write(flows([MS], first=1))
        self.world.pump([1.0] * 3)
        self.assertNoResult(waiting)
        self.assertEqual([], list(self.place.iterdir()))
        self.assertIn("is not the store that was written before", self.out.state().reasons[0])
        self.out._identity._device = device
        self.world.pump([1.0] * 3)
        self.successResultOf(waiting)

    def test_begun_anew(self):
        """The command of the message begins a new store, while the service runs; so does another directory."""
        state = Path(self.mktemp()) / "of pq1"
        state.mkdir(parents=True)
        self.restarted(state)
        os.rename(self.place, self.place.with_name("away4"))
        said = []
        self.patch(PARQUET, "log", Logger(observer=lambda event: said.append(formatEvent(event))))
        self.restarted(state)
        command = next(text for text in said if "is gone" in text).partition("a new store there: ")[2]
        self.assertFalse(self.place.exists())
        subprocess.run(command.removesuffix("; rows wait"), shell=True, check=True)
        self.out.wake(5.0)
        self.assertEqual("ok", self.out.state().word)
        self.successResultOf(self.write(flows([MS])))
        self.place = self.place.with_name("other")
        self.assertEqual("ok", self.restarted(state).state().word)

    def test_damaged_state(self):
        """What is remembered of the store cannot be read: it is counted, and the store goes on."""
        state = Path(self.mktemp())
        state.mkdir()
        (state / "store").write_text("{")
        out = self.restarted(state)
        self.assertEqual(("ok", 1), (out.state().word, out.counters.errors["state"]))
        self.assertEqual(0, self.restarted(state).counters.errors["state"])

    def test_full(self):
        """Below min_free rows wait; at a stop they are still the queue's."""
        out = self.output(directory=str(self.place / "full"), min_free=1.0)
        waiting = self.write(flows([MS]), out=out)
        self.world.pump([1.0] * 5)
        self.assertGreater(out.counters.errors["full"], 2)
        self.successResultOf(out.stop())
        self.failureResultOf(waiting, NotWritten)
        self.assertEqual(files(self.place / "full"), [])

    def test_no_room(self):
        """A disk that is full in the middle of a file leaves no part of it; with room again all is there once."""
        real = os.fsync

        def full(fd):
            raise OSError(errno.ENOSPC, "No space left on device")

        with mock.patch("os.fsync", full):
            waiting = self.write(flows([MS, MS - 1]))
            self.assertNoResult(waiting)
        self.assertIs(os.fsync, real)
        self.assertEqual(list(self.place.rglob("*.part")), [])
        self.world.pump([1.0] * 3)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [0, 1])

    def test_two_writers(self):
        """A second output of the directory waits until the first one ends."""
        other = self.output()
        waiting = self.write(flows([MS]), out=other)
        self.world.pump([1.0] * 3)
        self.assertNoResult(waiting)
        self.assertGreater(other.counters.errors["locked"], 0)
        self.successResultOf(self.out.stop())
        self.world.pump([2.0] * 2)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [0])

    def test_coverage_of_another(self):
        """An output that waits for a store of another leaves its record of coverage alone, also when it ends."""
        before = (self.place / "coverage").read_bytes()
        other = self.output()
        other.wake(0.0)
        self.successResultOf(other.stop())
        self.assertEqual((self.place / "coverage").read_bytes(), before)

    def test_strange_store(self):
        """The store of a newer release is left alone, and the state says why."""
        self.successResultOf(self.out.stop())
        (self.place / "store.json").write_text('{"version": 2}')
        out = self.output()
        self.assertIn("store.json", out.state().reasons[0])
        waiting = self.write(flows([MS]), out=out)
        self.world.pump([1.0] * 3)
        self.assertNoResult(waiting)
        self.assertEqual(files(self.place), [])

    def test_refused(self):
        """Rows that DuckDB does not take are refused after some attempts, the others stored."""
        self.successResultOf(self.write(flows([MS])))
        real = self.out.writer._copy_to

        def copy(part, piece, names):
            if any(int(chunk[0].buffers[1][0, 1]) & 0xFFFF == 7 for chunk in piece.chunks):
                raise duckdb.InvalidInputException("no")
            real(part, piece, names)

        with mock.patch.object(self.out.writer, "_copy_to", copy):
            waiting = self.write(flows([MS], first=7), flows([MS, MS], first=8))
            self.world.pump([1.0] * 10)
        self.successResultOf(waiting)
        self.assertEqual(ports(self.place), [0, 8, 9])
        self.assertEqual(self.out.counters.dropped["refused"], 1)

    def test_committed(self):
        """After a kill it is known of the last write whether it is there."""
        self.successResultOf(self.write(flows([MS])))
        run = self.out.run
        self.successResultOf(self.out.stop())
        out = self.output()
        self.assertEqual([out.committed(run, number) for number in (1, 2)], [True, False])

    def test_key_of_a_plugin(self):
        """A key that only a plugin knows becomes a column with the first batch that has it."""
        own = known("octets").named("my.number")
        self.out._keys += ("my.number",)
        batch = flows([MS]).with_columns({own: flows([MS]).columns["flowEndMilliseconds"]})
        self.out.sources.add("my.number", Provided([own]).recipes("my.number"))
        self.successResultOf(self.write(flows([MS], first=1)))
        self.successResultOf(self.write(batch))
        found = rows(self.place, 'select sourceTransportPort, "my.number" from t order by 1')
        self.assertEqual(found, [(0, MS), (1, None)])
        names = [column.name for column in description.read(self.place).columns]
        self.assertIn("my.number", names)
        self.assertIs(description.read(self.place).columns[names.index("my.number")].key.type, types.UNSIGNED64)
