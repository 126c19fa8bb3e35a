"""Wishes on their way up a tree, and those of the real plugins."""

import os

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core import doubles
from tests.unit.core.test_stack import spec
from ulogd_tw import config as configuration
from ulogd_tw.core.patience import Ends, Wish
from ulogd_tw.core.stack import Builder
from ulogd_tw.tap import Built


class TreeTests(SynchronousTestCase):
    """Stacks of doubles."""

    def wish(self, wishes, *stacks):
        """The wish at the input f; `wishes`: seconds by instance."""
        for class_ in doubles.PLUGINS.values():
            self.patch(class_, "patience", lambda plugin: wishes.get(plugin.instance))
        graph = Builder(doubles.lookup, doubles.read_options).build([spec(text) for text in stacks])
        self.assertEqual(len(graph.stacks), len(stacks))
        return graph.instances["f"]

    def test_the_smallest(self):
        """Of two outputs the one with less patience decides; who says nothing does not count."""
        stacks = ("f:FLOWS,h:HALF,k1:KEEP", "f:FLOWS,h:HALF,k2:KEEP", "f:FLOWS,k3:KEEP")
        for k1, k2, k3, half, expected in ((1, 0.5, 2, None, 0.5), (1, None, 2, None, 1), (1, 1, 0.0, None, 0.0),
                                           (None, None, None, None, None), (1, 1, 1, 0.1, 0.1), (1, 0.2, 1, 0.3, 0.2),
                                           (-1, 1, 1, None, 0.0)):  # fmt: skip
            plugin = self.wish({"k1": k1, "k2": k2, "k3": k3, "h": half}, *stacks)
            self.assertEqual(plugin.may_wait(), expected)

    def test_an_aggregate(self):
        """Above an aggregate its own wish counts, whatever is below."""
        self.patch(doubles.HALF, "passes", False)
        self.assertEqual(self.wish({"h": 0.7, "k": 0.0}, "f:FLOWS,h:HALF,k:KEEP").may_wait(), 0.7)
        self.assertEqual(self.wish({"h": 0.7, "k": 0.0}, "f:FLOWS,h:HALF,k:KEEP", "f:FLOWS,k:KEEP").may_wait(), 0.0)

    def test_watched(self):
        """While somebody looks on, no row waits."""
        plugin = self.wish({"k": 1.0}, "f:FLOWS,k:KEEP")
        plugin.watchers += 1
        self.assertEqual(plugin.may_wait(), 0.0)
        plugin.watchers -= 1
        self.assertEqual(plugin.may_wait(), 1.0)

    @given(st.integers(0, 10**10), st.integers(1, 3600), st.integers(0, 600))
    def test_ends(self, now, every, late):
        """The next end is the first multiple of the interval after now, so many seconds late."""
        ahead = Ends(every, late).next(float(now))
        self.assertTrue(0 < ahead <= every)
        self.assertEqual((now + ahead - late) % every, 0)

    def test_both(self):
        """The shorter wait, and all ends."""
        one, two = Wish(1.0, frozenset([Ends(60)])), Wish(None, frozenset([Ends(5, 2)]))
        self.assertEqual(one.and_(two), Wish(1.0, frozenset([Ends(60), Ends(5, 2)])))

    def test_kept(self):
        """Rows are kept anyway where all who have a wish keep them."""
        kept, other, silent = Wish(1.0, kept=True), Wish(1.0), Wish()
        for wishes, expected in (
            ((kept, kept), True), ((kept, silent), True), ((silent, kept), True), ((kept, other), False),
            ((other, kept), False), ((other, silent), False), ((silent, silent), False),
        ):  # fmt: skip
            self.assertIs(wishes[0].and_(wishes[1]).kept, expected, wishes)


class PluginTests(SynchronousTestCase):
    """Wishes of the plugins that there are, by their options."""

    def wish(self, stack, **sections):
        lines = ["[global]", *[f"stack={one}" for one in stack.split()]]
        for name, options in sections.items():
            lines += [f"[{name}]", *options.split()]
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        built = Built(configuration.load(path), prepare=False)
        self.assertEqual(built.fatal, [], path)
        return built.graph.inputs[0].plugin.wish

    def test_outputs(self):
        """A file waits for a second, a console and sync=1 not at all, IPFIX as long as flush, a peer a quarter."""
        here = os.getcwd()
        for output, options, expected in (
            ("JSON", f"file={here}/x.json", 1.0), ("JSON", "file=-", 0.0), ("JSON", "file=/dev/stderr", 0.0),
            ("JSON", "file=/dev/null", 1.0),
            ("JSON", f"file={here}/x.json sync=1", 0.0), ("JSON", "mode=tcp", 0.25), ("GPRINT", "file=stdout", 0.0),
            ("IPFIX", "host=192.0.2.1 flush=0.5", 0.5), ("IPFIX", "host=192.0.2.1", 1.0),
            ("SQLITE3", f"db={here}/x.db table=t create=1 keys=sourceAddress", 1.0), ("OPRINT", "file=/dev/tty", 0.0),
        ):  # fmt: skip
            self.assertEqual(self.wish(f"c:COLLECTOR,o:{output}", o=options).seconds, expected, (output, options))

    def test_aggregates(self):
        """A tenth of the interval, at most a second, above any output; and no wait crosses its end."""
        for options, seconds, ends in (
            ("interval=60", 1.0, {Ends(60)}), ("interval=5", 0.5, {Ends(5)}), ("interval=1", 0.1, {Ends(1)}),
            ("interval=60 time=flow lateness=30", 1.0, {Ends(60, 30)}), ("age=2", 0.2, set()),
        ):  # fmt: skip
            found = self.wish("c:COLLECTOR,a:AGGREGATE,o:JSON", a=options, o="file=-")
            self.assertEqual((found.seconds, found.ends, found.kept), (seconds, ends, True), options)

    def test_shown_too(self):
        """What goes to a file beside an aggregate, or into FLOWCACHE, is not waited for longer than without one."""
        here = os.getcwd()
        stacks = "c:COLLECTOR,a:AGGREGATE,o:JSON c:COLLECTOR,p:JSON"
        self.assertFalse(self.wish(stacks, o="file=-", p=f"file={here}/x.json").kept)
        self.assertFalse(self.wish("c:COLLECTOR,o:IPFIX", o="host=192.0.2.1").kept)
        self.assertFalse(self.wish("p:PACKET,b:BASE,f:FLOWCACHE,o:JSON", p="interface=lo", o="file=-").kept)

    def test_files_that_rotate(self):
        """No wait crosses the end of an archive's file."""
        found = self.wish("c:COLLECTOR,o:IPFIXFILE", o=f"file={os.getcwd()}/x-%H.ipfix rotate_interval=300")
        self.assertEqual(found, Wish(1.0, frozenset([Ends(300)])))

    def test_filters_pass_on(self):
        """MATCH has no wish of its own; the stack with the console decides."""
        stacks = "c:COLLECTOR,m:MATCH,a:AGGREGATE,o:JSON c:COLLECTOR,m:MATCH,p:JSON"
        found = self.wish(stacks, m='match="any"', o="file=-", p="file=-")
        self.assertEqual((found.seconds, found.ends), (0.0, frozenset([Ends(60)])))
