"""The state file of AGGREGATE: what is open survives a stop and a crash, and nothing comes twice."""

import errno
import io
import json
import math
import os
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import interval, state_file
from ulogd_tw.aggregation.checkpoints import Checkpoints
from ulogd_tw.aggregation.functions import registry
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.plugin import hand_over


class StateCase(AggregateCase):
    """AGGREGATE with a state file; what threads do is done at once."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "state"
        self.patch(Checkpoints, "in_thread", staticmethod(defer.maybeDeferred))

    def begin(self, **options):
        """A new process: made and opened."""
        self.make(**{"state_file": str(self.path)} | options)
        self.agg.fault = lambda error: None
        self.agg.open()
        self.agg.aggregation.checkpoints._due = math.inf  # a checkpoint is when the test says so
        return self.agg

    def end(self):
        """An orderly stop."""
        self.agg.flush()
        self.agg.stop()
        self.assertEqual(self.graph.unaccounted(), {})

    def crash(self):
        """The process is gone: of its files only what it wrote is there."""
        self.agg.aggregation.checkpoints.file.close()

    def checkpoint(self):
        self.agg.aggregation.checkpoints._due = 0.0
        self.agg.aggregation.checkpoint(1.0)
        self.agg.aggregation.checkpoints._due = math.inf


def written(directory):
    """The names of state files there, without their marks."""
    return {path.name for path in directory.iterdir() if path.suffix != ".emitted"}


def protocols(*numbers, octets=10, **more):
    """A row of each of these protocols."""
    return batch_of([{"protocolIdentifier": n, "octetDeltaCount": octets} | more for n in numbers])


class StateFileTests(StateCase):
    """Stops, crashes, damage."""

    def test_stop_and_start(self):
        """Nothing is emitted at the stop; the interval goes on after the start, and comes once, when it is over."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6, 17, 6))
        self.end()
        self.assertEqual([], self.rows())
        self.begin(key="protocolIdentifier", interval=600)
        self.assertEqual(2, self.agg.counters.figures["groups_restored"])
        self.give(protocols(6, 1))
        self.agg.wake(600.0)
        found = {r["protocolIdentifier"]: (r["flows"], r["octets"], r["interval_start"]) for r in self.rows()}
        self.assertEqual({6: (3, 30, 0), 17: (1, 10, 0), 1: (1, 10, 0)}, found)
        self.end()
        self.begin(key="protocolIdentifier", interval=600)
        self.end()
        self.assertEqual([], self.rows())

    def test_no_room_at_the_stop(self):
        """Groups that cannot be kept are emitted; what an earlier writing has of them does not come once more."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6, 17))
        self.checkpoint()
        self.give(protocols(6))
        full = OSError(errno.ENOSPC, "No space left on device")
        for write in ("steps", "mark"):  # a mark says that groups of the file are emitted
            self.patch(state_file.StateFile, write, lambda *_: (_ for _ in ()).throw(full))
        self.end()
        self.assertEqual({6: 2, 17: 1}, {row["protocolIdentifier"]: row["flows"] for row in self.rows()})
        self.begin(key="protocolIdentifier", interval=600)
        self.agg.wake(600.0)
        self.assertEqual([], self.rows())

    def test_in_the_state_directory(self):
        """Kept there without state_file; a state_file goes before it."""
        for path in ("", str(self.path)):
            self.make(key="protocolIdentifier", interval=600, state_file=path)
            self.agg.keep_state(self.path.parent, 1.0)
            self.agg.open()
            self.give(protocols(6))
            self.end()
            self.assertEqual({"state"} if path else {"intervals"}, written(self.path.parent))
            for file in self.path.parent.iterdir():
                self.assertEqual(0o600, file.stat().st_mode & 0o777)
                file.unlink()

    def test_handed_to_a_successor(self):
        """In one process, without a file: the interval goes on, and comes once."""
        options = {
            "key": "protocolIdentifier,interfaceName",
            "interval": 600,
            "functions": "distinct(sourceIPv4Address)",
        }
        self.make(**options)
        self.give(protocols(6, 17, interfaceName=b"eth0", sourceIPv4Address=1))
        former = self.agg
        self.make(**options)
        self.assertTrue(hand_over(former, self.agg))
        self.give(protocols(6, interfaceName=b"eth0", sourceIPv4Address=2))
        self.agg.wake(600.0)
        found = {r["protocolIdentifier"]: (r["flows"], r["distinct_sourceIPv4Address"]) for r in self.rows()}
        self.assertEqual({6: (2, 2), 17: (1, 1)}, found)

    def test_a_successor_with_other_sums(self):
        """It takes nothing, so that the groups of its predecessor go out."""
        self.make(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        former = self.agg
        self.make(key="protocolIdentifier", interval=300)
        self.assertFalse(hand_over(former, self.agg))
        self.assertTrue(former.holds)

    def test_a_crash_costs_what_came_since_the_checkpoint(self):
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        self.checkpoint()
        self.give(protocols(17))
        self.crash()
        self.begin(key="protocolIdentifier", interval=600)
        self.agg.wake(600.0)
        self.assertEqual([(6, 1)], [(r["protocolIdentifier"], r["flows"]) for r in self.rows()])

    def test_what_was_emitted_does_not_come_again(self):
        """Although the file still has it, since the crash came before the next checkpoint; also after two crashes."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        self.checkpoint()
        self.agg.wake(600.0)
        self.assertEqual(1, len(self.rows()))
        for _ in range(2):
            self.crash()
            self.begin(key="protocolIdentifier", interval=600)
            self.agg.wake(1200.0)
            self.assertEqual([], self.rows())

    def test_emitted_while_a_thread_writes(self):
        """What was copied before comes no more, although it is in the file."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        waiting = []

        def later(work, *arguments):
            waiting.append((work, defer.Deferred()))
            return waiting[-1][1]

        self.patch(Checkpoints, "in_thread", staticmethod(later))
        self.checkpoint()
        work, done = waiting.pop()
        done.callback(work())  # the interval is copied
        writing = waiting.pop()
        self.agg.wake(600.0)
        self.assertEqual(1, len(self.rows()))
        for work, done in (writing, *waiting):
            done.callback(work())
        while len(waiting) > 1:
            work, done = waiting.pop()
            done.callback(work())
        self.assertEqual(1, self.agg.counters.figures["states_written"])
        self.crash()
        self.patch(Checkpoints, "in_thread", staticmethod(defer.maybeDeferred))
        self.begin(key="protocolIdentifier", interval=600)
        self.agg.wake(600.0)
        self.assertEqual([], self.rows())

    def test_continued_by(self):
        """Only by an AGGREGATE of the same sums that looks for them at the same place."""
        same = {"key": "protocolIdentifier", "interval": 600}
        one = self.begin(**same)
        others = [None, self.source, self.make(**same | {"interval": 60}), self.make(**same)]
        others.append(self.make(**same | {"state_file": str(self.path) + "2"}))
        others.append(self.make(**same | {"state_file": str(self.path), "max_keys": 5, "top": 3}))
        self.assertEqual([False] * 5 + [True], [one.continued_by(other) for other in others])

    def test_when_it_is_written(self):
        """Every `checkpoint` seconds, where anything has changed."""
        self.begin(key="protocolIdentifier", interval=600, checkpoint=20)
        self.agg.aggregation.checkpoints._due = None
        written = []
        for now in range(0, 100, 5):
            if now in (0, 45):
                self.give(protocols(6))
            self.agg.wake(float(now))
            written.append(self.agg.counters.figures["states_written"])
        self.assertEqual([0] * 4 + [1] * 8 + [2] * 8, written)

    def test_only_at_the_stop(self):
        """With checkpoint=0."""
        self.begin(key="protocolIdentifier", interval=600, checkpoint=0)
        self.agg.aggregation.checkpoints._due = None
        self.give(protocols(6))
        for now in range(0, 500, 50):
            self.agg.wake(float(now))
        self.assertEqual(0, self.agg.counters.figures["states_written"])
        self.agg.flush()
        self.assertEqual(1, self.agg.counters.figures["states_written"])

    def test_a_restored_interval_does_not_come_again(self):
        """A crash, a start that emits what was restored, and a crash before it writes the file."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        self.checkpoint()
        self.crash()
        self.begin(key="protocolIdentifier", interval=600)
        self.agg.wake(600.5)
        self.assertEqual(1, len(self.rows()))
        self.crash()
        self.begin(key="protocolIdentifier", interval=600)
        self.agg.wake(601.0)
        self.assertEqual([], self.rows())

    def test_rows_that_wait_to_go_out_are_kept(self):
        """While the queue below is full, an interval that is over is in the file, and comes after a crash."""
        self.begin(key="protocolIdentifier", interval=30)
        self.give(protocols(6))
        self.agg.pause()
        self.agg.wake(30.0)
        self.checkpoint()
        self.assertEqual([], self.rows())
        self.crash()
        self.begin(key="protocolIdentifier", interval=30)
        self.agg.wake(61.0)
        self.assertEqual([(6, 0)], [(r["protocolIdentifier"], r["interval_start"]) for r in self.rows()])

    def test_an_early_table_does_not_come_again(self):
        """overflow=emit: the interval is still open, but what went out early has gone."""
        options = {"key": "protocolIdentifier", "interval": 600, "max_keys": 2}
        self.begin(**options)
        self.give(protocols(1, 2))
        self.checkpoint()
        self.give(protocols(3))
        self.agg.wake(61.0)
        self.assertEqual([1, 2], sorted(r["protocolIdentifier"] for r in self.rows()))
        self.crash()
        self.begin(**options)
        self.agg.wake(600.0)
        self.assertEqual([], self.rows())

    def test_late_rows_are_known_as_such_after_a_start(self):
        options = {"key": "protocolIdentifier", "interval": 10, "time": "flow", "lateness": 10}
        self.begin(**options)
        self.give(batch_of([{"protocolIdentifier": 6, "flowEndMilliseconds": 131_000}], now=131.0))
        self.end()
        self.begin(**options)
        self.give(batch_of([{"protocolIdentifier": 6, "flowEndMilliseconds": 100_000}], now=132.0))
        self.assertEqual(1, self.agg.counters.figures["rows_late"])

    def test_another_key_or_function(self):
        """The groups go out as they were, at once and once; the interval of the new settings begins empty."""
        first = {"key": "protocolIdentifier/2,applicationName", "functions": "m=max(octetDeltaCount)"}
        others = ({"key": "sourceTransportPort"}, {"functions": "min(octetDeltaCount)"}, {"interval": 30}, {"age": 10},
                  {"key": "applicationName", "functions": "", "window": 120}, {"change": "applicationName"},
                  {"time": "spread", "top": 1, "by": "packets"})  # fmt: skip
        for other in others:
            self.begin(**first)
            self.give(protocols(6, 7, 17, applicationName=b"dns"))
            self.end()
            self.begin(**first | other)
            self.assertEqual({}, self.agg.counters.errors)
            self.assertEqual(0, len(self.agg.aggregation.intervals))
            self.assertEqual(3, self.agg.held_rows())
            self.agg.wake(1.0)
            self.agg.wake(1.0)
            known = ("protocolIdentifier/2", "applicationName", "flows", "octets", "m", "interval_start")
            found = sorted(tuple(row.get(name) for name in known) for row in self.rows())
            self.assertEqual([(6, b"dns", 2, 20, 10, 0), (16, b"dns", 1, 10, 10, 0)], found)
            self.give(protocols(1))
            self.end()
            self.begin(**first | other)
            self.assertEqual(1, self.agg.held_rows())
            self.crash()
            os.unlink(self.path)

    def test_killed_while_groups_of_other_settings_go(self):
        """What has gone out does not come again; the file is not written over groups that still wait."""
        self.begin(key="protocolIdentifier", interval=10, time="flow", lateness=600)
        for ended in (0, 10_000, 20_000):
            self.give(protocols(6, flowEndMilliseconds=ended))
        self.end()
        self.begin(key="sourceTransportPort", interval=60)
        self.agg.wake(1.0)
        before = len(self.rows())
        self.assertEqual(1, before)
        self.checkpoint()
        self.crash()
        self.begin(key="sourceTransportPort", interval=60)
        self.assertEqual(3 - before, self.agg.held_rows())

    def test_a_function_that_is_gone(self):
        """The file is set aside, said and counted, and the next stop writes a new one."""
        self.begin(key="protocolIdentifier", functions="max(octetDeltaCount)")
        self.give(protocols(6))
        self.end()
        self.patch(registry, "_built_in", {n: f for n, f in registry._built_in.items() if n != "max"})
        for errors in (1, 0):
            self.begin(key="protocolIdentifier")
            self.assertEqual(errors, self.agg.counters.errors["state_file"])
            self.assertEqual(0, self.agg.held_rows())
            self.assertTrue(self.path.with_name("state.aside").exists())
            self.end()

    def test_damage(self):
        """Any cut and any octet that is another: set aside and counted, or read as it was."""
        options = {"key": "protocolIdentifier,applicationName", "functions": "distinct(octetDeltaCount)"}
        self.begin(**options)
        self.give(protocols(6, 17, applicationName=b"dns"))
        self.end()
        whole = self.path.read_bytes()
        random = np.random.default_rng(1)
        for place in random.integers(0, len(whole), 150).tolist():
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(random.integers(0, 8))
            for octets in (whole[:place], bytes(damaged)):
                self.path.write_bytes(octets)
                self.begin(**options)
                if not self.agg.counters.errors["state_file"]:
                    self.assertEqual(2, self.agg.counters.figures["groups_restored"])
                self.crash()

    def test_hostile(self):
        """Arrays of other shapes, types and codes than a table has, in a file that is whole otherwise."""
        self.begin(key="applicationName", functions="distinct(octetDeltaCount)")
        self.give(protocols(6, 17, applicationName=b"dns"))
        self.end()
        with np.load(self.path) as arrays:
            good = dict(arrays)
        bad = [
            {"t0.g0.p0.rows": good["t0.g0.p0.rows"][:, :-1]}, {"t0.g0.p0.rows": good["t0.g0.p0.rows"].astype(float)},
            {"t0.g0.p0.rows": good["t0.g0.p0.rows"] + np.uint64(7)}, {"t0.g0.p0.v0": good["t0.g0.p0.v0"][:-1]},
            {"t0.g0.p0.f0": np.zeros(3, np.uint8)}, {"t0.g0.p0.f0": np.zeros(1)}, {"head": np.zeros(3, np.uint8)},
            {"t0.d0.offsets": np.array([0, 2**40])}, {"t0.d0.offsets": np.array([[0]])},
            {"head": np.array([None, {}])}, {"t0.d0.data": np.zeros(1)},
        ]  # fmt: skip
        head = json.loads(good["head"].tobytes())
        for change in ({"tallies": 1}, {"tallies": [["t0", {}]]}, {"version": 2}, {"closed": "x"}):
            bad.append({"head": np.frombuffer(json.dumps(head | change).encode(), np.uint8)})
        for change in bad:
            np.savez(self.path.with_suffix(".npz"), **good | change)
            os.replace(self.path.with_suffix(".npz"), self.path)
            self.begin(key="applicationName", functions="distinct(octetDeltaCount)")
            self.assertEqual(
                (1, 0), (self.agg.counters.errors["state_file"], len(self.agg.aggregation.intervals)), list(change)
            )
            self.crash()

    def test_marks_that_are_cut(self):
        """A line without its end is none; nothing else is lost by it."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        self.end()
        with open(self.path.with_name("state.emitted"), "ab") as file:
            file.write(b"\xff\xff 3\nab cd\n0123456789abcdef 6")
        self.begin(key="protocolIdentifier", interval=600)
        self.assertEqual(1, self.agg.counters.figures["groups_restored"])

    def test_a_stop_while_marks_are_flushed(self):
        """The file stays open until the last one is on the disk, whatever else was emitted meanwhile."""
        self.begin(key="protocolIdentifier", interval=10)
        threads = []

        def in_thread(work):
            waiting = defer.Deferred().addCallback(lambda _: work())
            threads.append(waiting)
            return waiting

        self.patch(Checkpoints, "in_thread", staticmethod(in_thread))
        for now in (10.0, 20.0):
            self.give(protocols(6))
            while self.agg.wake(now) == 0.0:
                pass
        stopped = self.agg.stop()
        for number in (0, 1):
            self.assertFalse(stopped.called)
            threads[number].callback(None)
        self.successResultOf(stopped)
        self.assertEqual((2, {}), (len(threads), self.agg.counters.errors))

    def test_one_process_at_a_time(self):
        self.begin(key="protocolIdentifier")
        first = self.agg
        self.assertRaises(StartError, self.begin, key="protocolIdentifier")
        first.stop()
        self.begin(key="protocolIdentifier")
        self.agg.stop()

    def test_no_directory(self):
        self.assertRaises(StartError, self.begin, key="protocolIdentifier", state_file=str(self.path / "x" / "y"))

    def test_the_disk_is_full_at_the_stop(self):
        """Then intervals are emitted, as without a file; and it is said which file could not be written."""
        self.begin(key="protocolIdentifier")
        self.give(protocols(6))
        faults = []
        self.agg.fault = lambda error: faults.append(str(error))

        def full(archive, arrays):
            raise OSError(28, "No space left on device")

        self.patch(state_file, "_put", full)
        self.end()
        self.assertEqual([6], [r["protocolIdentifier"] for r in self.rows()])
        self.assertEqual(1, self.agg.counters.errors["state_file"])
        self.assertEqual([f"[Errno 28] No space left on device: '{self.path}'"], faults)

    def test_a_stop_while_a_thread_writes(self):
        """What the thread still does takes nothing from what the stop wrote."""
        self.begin(key="protocolIdentifier", interval=600)
        self.give(protocols(6))
        waiting = []

        def later(work, *arguments):
            done = defer.Deferred()
            waiting.append((work, done))
            return done

        self.patch(Checkpoints, "in_thread", staticmethod(later))
        self.checkpoint()
        for _ in range(2):  # up to the last step, which puts the file in place
            work, done = waiting.pop()
            done.callback(work())
        self.give(protocols(17))
        self.agg.flush()
        stopping = self.agg.stop()
        self.assertFalse(stopping.called)
        work, done = waiting.pop()
        done.callback(work())
        self.assertTrue(stopping.called)
        self.assertEqual(1, self.agg.counters.figures["states_written"])
        self.begin(key="protocolIdentifier", interval=600)
        self.assertEqual(2, self.agg.counters.figures["groups_restored"])
        self.assertEqual(["state", "state.emitted"], sorted(p.name for p in self.path.parent.iterdir()))

    def test_a_fold_while_a_thread_writes(self):
        """What was copied is of no use then: the file is written when all is folded, with nothing twice in it."""
        self.patch(interval, "AT_ONCE", 2)
        options = {"key": "sourceTransportPort", "interval": 600, "overflow": "fold", "max_keys": 8}
        self.begin(**options)
        self.give(batch_of([{"sourceTransportPort": n, "octetDeltaCount": n} for n in range(8)]))
        waiting = []

        def later(work, *arguments):
            waiting.append((work, defer.Deferred()))
            return waiting[-1][1]

        self.patch(Checkpoints, "in_thread", staticmethod(later))
        self.patch(state_file, "PIECE_OCTETS", 1)
        self.checkpoint()
        self.give(batch_of([{"sourceTransportPort": 9, "octetDeltaCount": 100}]))
        self.agg.aggregation.checkpoints._due = 0.0
        for now in range(61, 100):
            if waiting:
                work, done = waiting.pop()
                done.callback(work())
            self.agg.wake(float(now))
        self.assertEqual((1, []), (self.agg.counters.figures["states_written"], waiting))
        self.crash()
        self.begin(**options)
        for _ in range(2):  # a slice each
            self.agg.wake(600.0)
        self.assertEqual((9, 128), tuple(sum(row[name] for row in self.rows()) for name in ("flows", "octets")))

    def test_the_file_has_no_pickles(self):
        """Every array can be read by NumPy alone."""
        self.begin(key="applicationName", functions="quantile(octetDeltaCount,0.5)")
        self.give(protocols(6, applicationName=b"dns"))
        self.end()
        with zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)


FUNCTIONS = " ".join(f"{f}(octetDeltaCount)" for f in "sum count min max first last or mean distinct".split())
FUNCTIONS += " q=quantile(octetDeltaCount,0.5)"
a_row = st.fixed_dictionaries(
    {"protocolIdentifier": st.integers(0, 3), "octetDeltaCount": st.integers(0, 2**40)},
    optional={"applicationName": st.sampled_from([b"", b"dns", b"\xff"]), "packetDeltaCount": st.integers(0, 9),
              "reverseOctetDeltaCount": st.integers(0, 9), "flowStartMilliseconds": st.integers(0, 200_000),
              "flowEndMilliseconds": st.integers(0, 200_000)},
)  # fmt: skip
what_happens = st.lists(st.lists(a_row, min_size=1, max_size=8) | st.sampled_from(["stop", "crash", "checkpoint"]))


class RestartTests(StateCase):
    """A service with restarts gives what one without them gives."""

    @examples(20)
    @given(what_happens, st.sampled_from(["arrival", "flow", "spread"]))
    def test_restarts_change_nothing(self, events, time):
        """Whatever rows, however often stopped, or killed just after a checkpoint."""
        options = {"key": "protocolIdentifier,applicationName", "functions": FUNCTIONS, "interval": 60, "time": time}
        self.make(**options)
        for rows in events:
            if isinstance(rows, list):
                self.give(batch_of(rows))
        self.agg.flush()
        expected = self.sorted_rows()
        for path in self.path.parent.iterdir():
            path.unlink()
        self.patch(state_file, "PIECE_OCTETS", 1)  # one entry a piece
        self.begin(**options)
        for event in events:
            if isinstance(event, list):
                self.give(batch_of(event))
                continue
            if event == "stop":
                self.end()
            else:
                self.checkpoint()
            if event == "crash":
                self.crash()
            if event != "checkpoint":
                self.begin(**options)
        self.agg.aggregation._close(10**9)
        self.agg.aggregation.queue.send(all_=True)
        self.assertEqual(expected, self.sorted_rows())
        self.assertEqual({}, self.agg.counters.errors)
        self.crash()

    @examples(30)
    @given(st.lists(st.integers(1, 25) | st.tuples(st.sampled_from(["stop", "crash", "wake"]), st.integers(0, 5)),
                    max_size=14))  # fmt: skip
    def test_settings_change_at_restarts(self, events):
        """Whatever restarts with whatever settings: each row is in one row that goes out."""
        self.patch(state_file, "PIECE_OCTETS", 1)
        choices = [{"key": "protocolIdentifier"}, {"key": "applicationName,protocolIdentifier/4"}, {"age": 7.0},
                   {"key": "applicationName", "interval": 15, "functions": FUNCTIONS}, {"change": "applicationName"},
                   {"key": "protocolIdentifier", "time": "flow", "max_keys": 2, "overflow": "evict"}]  # fmt: skip
        usual = {"key": "protocolIdentifier,applicationName", "interval": 10}
        now, given_rows, found = 1000, [], Counter()

        def gather():
            for row in self.rows():
                found.update(flows=row["flows"], octets=row.get("octets", 0))
            del self.keep.batches[:]

        self.begin(**usual)
        for number, event in enumerate(events):
            if isinstance(event, int):
                now += event
                given_rows.append(number)
                row = {"protocolIdentifier": number, "octetDeltaCount": number, "applicationName": b"%d" % (number % 3)}
                self.give(batch_of([row], now=float(now)))
                continue
            what, chosen = event
            if what == "wake":
                self.agg.wake(float(now))
                continue
            self.checkpoint() if what == "crash" and self.agg.aggregation.snapshot() else self.agg.flush()
            gather()
            self.crash()
            self.begin(**usual | choices[chosen])
        self.agg.hand_on()
        gather()
        self.assertEqual((len(given_rows), sum(given_rows)), (found["flows"], found["octets"]))
        self.crash()

    @examples(30)
    @given(st.lists(st.integers(0, 25) | st.sampled_from(["stop", "crash"]), max_size=12),
           st.sampled_from([{"window": 30}, {"age": 20.0}]))  # fmt: skip
    def test_windows_and_ages(self, events, options):
        """Each step of the clock with a row; the windows and groups are those of a service that goes on."""
        options |= {"key": "protocolIdentifier", "interval": 10, "functions": "n=last(octetDeltaCount)"}

        def go_on(now):
            while self.agg.wake(now) == 0.0:
                pass

        def rows(restarts):
            begin = self.begin if restarts else self.make
            now, found = 1000, []
            begin(**options)
            for number, event in enumerate(events):
                if not isinstance(event, str):
                    now += event
                    go_on(float(now))
                    row = {"protocolIdentifier": number % 3, "octetDeltaCount": number}
                    self.give(batch_of([row], now=float(now)))
                    go_on(now + 0.5)
                elif restarts:
                    self.checkpoint() if event == "crash" else self.agg.flush()
                    found += self.sorted_rows()
                    self.crash()
                    begin(**options)
            go_on(now + 100.0)
            found += self.sorted_rows()
            if restarts:
                self.crash()
            return sorted(found, key=repr)

        expected = rows(False)
        for path in self.path.parent.iterdir():
            path.unlink()
        self.assertEqual(expected, rows(True))

    def sorted_rows(self):
        return sorted((sorted(row.items()) for row in self.rows()), key=repr)

    @examples(20)
    @given(st.lists(st.integers(0, 300), min_size=1, max_size=300), st.integers(0, 300), st.integers(1, 50))
    def test_any_size_of_pieces(self, ports, stop, at_once):
        """And a table that is smaller after the start: what it has no room for counts under NULL keys."""
        self.patch(state_file, "AT_ONCE", at_once)
        self.begin(key="sourceTransportPort")
        self.give(batch_of([{"sourceTransportPort": port, "octetDeltaCount": 1} for port in [*ports[:stop], 1]]))
        self.end()
        self.begin(key="sourceTransportPort", max_keys=7)
        if ports[stop:]:
            self.give(batch_of([{"sourceTransportPort": port, "octetDeltaCount": 1} for port in ports[stop:]]))
        self.agg.aggregation._close(60)
        self.agg.aggregation.queue.send(all_=True)
        self.crash()
        found = Counter()
        for row in self.rows():
            found[row.get("sourceTransportPort")] += row["flows"]
        lost = found.pop(None, 0)
        expected = Counter([*ports, 1])
        self.assertEqual(len(ports) + 1, found.total() + lost)
        self.assertEqual({}, found - expected)
