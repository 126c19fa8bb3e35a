"""Counters: numbers by declared names."""

import warnings

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core import counters
from ulogd_tw.core.counters import ByReason, Count, Counters, Dropped, Fault, Gauge, Group, Lost, Text, flat

DECLARED = (
    Count("polls", "occasions", "Looks."),
    Count("late", "rows", "Late ones.", True),
    Gauge("open", "files", "Open files."),
    Group("peers", "Each peer.", (
        Text("state", "", "Its state."),
        ByReason("dropped", "Given up.", (Dropped("full", "records", "No room."),)),
    ), each="peer"),
    Dropped("full", "rows", "No room."),
    Lost("kernel", "events", "Dropped by the kernel."),
    Fault("file", "occasions", "Cannot be read."),
)  # fmt: skip


class CountersTests(SynchronousTestCase):
    """The counters of an instance with declarations."""

    def setUp(self):
        self.counters = Counters("X", declared=DECLARED)
        self.counters.figures["peers"] = dict

    def test_beginning(self):
        """Figures begin with 0, in the order of declaration; a rare one comes with its first count."""
        self.assertEqual(["polls", "open", "peers"], list(self.counters.figures))
        self.counters.figures["late"] += 2
        self.assertEqual(["polls", "open", "peers", "late"], list(self.counters.figures))
        self.assertEqual(2, self.counters.as_dict()["late"])

    def test_undeclared(self):
        """A name that is not declared is an error in tests; one of another counter too."""
        for where, name in (("dropped", "fill"), ("lost", "full"), ("errors", "kernel"), ("figures", "full")):
            with self.assertRaisesRegex(LookupError, f"X: {where}: {name} is not declared"):
                getattr(self.counters, where)[name] += 1
            self.assertNotIn(name, getattr(self.counters, where))

    def test_undeclared_part(self):
        """A part of a group is declared too."""
        for value in ({"a": {"statt": ""}}, {"a": {"dropped": {"fill": 1}}}):
            self.counters.figures["peers"] = lambda value=value: value
            self.assertRaises(LookupError, self.counters.as_dict)
        self.counters.figures["peers"] = lambda: {"a": {"state": "up", "dropped": {"full": 1}}}
        self.assertEqual({"full": 1}, self.counters.as_dict()["peers"]["a"]["dropped"])

    def test_in_service(self):
        """In a running service it is counted, with one warning."""
        self.patch(counters._Checked, "strict", False)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.counters.dropped["fill"] += 1
            self.counters.dropped["fill"] += 1
            del self.counters.dropped["fill"]
            self.counters.dropped["fill"] += 3
        self.assertEqual(3, self.counters.dropped["fill"])
        self.assertEqual(["X: dropped: fill is not declared"], [str(w.message) for w in said])
        self.assertTrue(said[0].filename.endswith("test_counters.py"))

    def test_nothing_declared(self):
        """Without declarations every name is taken."""
        free = Counters("X")
        free.errors["what"] += 1
        free.figures["else"] += 1
        self.assertEqual(({"what": 1}, 1), (free.as_dict()["errors"], free.as_dict()["else"]))

    def test_exception(self):
        """An exception is counted under the name of its class."""
        self.assertEqual("ZeroDivisionError", self.counters.fault(ZeroDivisionError()))
        self.assertEqual({"ZeroDivisionError": 1}, self.counters.as_dict()["errors"])

    def test_flat(self):
        """Names as a reader of stats_file would write them."""
        self.assertEqual(
            ["polls", "late", "open", "peers.PEER.state", "peers.PEER.dropped.full", "dropped.full", "lost.kernel",
             "errors.file"],
            [name for name, _, _ in flat(DECLARED)],
        )  # fmt: skip
