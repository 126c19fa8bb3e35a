"""What a reload keeps, replaces and ends, by two configurations."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.core.changes import Changes, wants

BASE = """[global]
stack=col1:COLLECTOR,agg1:AGGREGATE,j1:JSON
stack=col1:COLLECTOR,big1:MATCH,j2:JSON
[col1]
listen="udp:127.0.0.1:4739"
[agg1]
key=sourceIPv4Address
interval=60
[big1]
match="octets > 1000"
[j1]
file=/tmp/one
[j2]
file=/tmp/two
"""


def graph(text):
    """The stacks of a configuration."""
    built = Built(config.parse(text, "f"), prepare=False)
    assert not built.fatal, built.fatal
    return built.graph


class ChangesTests(SynchronousTestCase):
    """From `BASE` to an edited text."""

    def changes(self, *edits):
        text = BASE
        for former, new in edits:
            self.assertIn(former, text)
            text = text.replace(former, new)
        old = graph(BASE)
        return Changes.between(old, {node: wants(node) for node in old.nodes}, graph(text))

    def names(self, nodes):
        return sorted(node.ident for node in nodes)

    def test_nothing(self):
        """Comments, order and the form of values within the text are no change; places of lines are none, too."""
        for edits in ([], [("[global]", "# more\n\n[global]")], [("interval=60", 'interval="60"')]):
            changes = self.changes(*edits)
            self.assertEqual((5, [], []), (len(changes.kept), changes.going, changes.lines()))

    def test_option_of_an_input(self):
        changes = self.changes(("[col1]", "[col1]\nmax_sessions=5"))
        self.assertEqual(["col1"], self.names(changes.replaced))
        self.assertEqual(["agg1", "big1", "j1", "j2"], self.names(changes.kept))
        self.assertEqual(["col1:COLLECTOR is replaced, since max_sessions changed"], changes.lines())

    def test_aggregate(self):
        changes = self.changes(("interval=60", "interval=30"))
        self.assertEqual(["agg1"], self.names(changes.replaced))
        self.assertEqual(["agg1:AGGREGATE is replaced, its groups are handed on first, since interval changed"],
                         changes.lines())  # fmt: skip

    def test_other_keys(self):
        """Another key of the aggregate is asked of the input, which goes on."""
        text = BASE.replace("stack=col1:COLLECTOR,big1:MATCH,j2:JSON\n", "")
        old, new = graph(text), graph(text.replace("key=source", "key=destination"))
        changes = Changes.between(old, {node: wants(node) for node in old.nodes}, new)
        self.assertEqual((["agg1"], ["col1"]), (self.names(changes.replaced), self.names(changes.rewired)))
        self.assertIn(changes.rewired[0], changes.kept)
        self.assertIn("col1:COLLECTOR goes on with other keys", changes.lines())

    def test_renamed(self):
        """An input with the same options under another name goes on; with other options it is another one."""
        changes = self.changes(("col1", "colx"))
        self.assertEqual(["colx"], [node.ident for node in changes.replaced])
        self.assertIn("colx:COLLECTOR is replaced, since its name changed", changes.lines())
        changes = self.changes(("col1", "colx"), ("4739", "4740"))
        self.assertEqual(([], True), (list(changes.replaced), "colx:COLLECTOR is new" in changes.lines()))

    def test_stacks(self):
        """A stack that is gone takes what nobody else uses with it; a filter put in between moves the output only."""
        changes = self.changes(("stack=col1:COLLECTOR,big1:MATCH,j2:JSON\n", ""))
        self.assertEqual(["big1", "j2"], self.names(changes.removed))
        self.assertIn("stack col1:COLLECTOR,big1:MATCH,j2:JSON is gone", changes.lines())
        changes = self.changes(("col1:COLLECTOR,agg1", "col1:COLLECTOR,big1:MATCH,agg1"))
        self.assertEqual(["agg1"], self.names(changes.removed))
        self.assertEqual(["agg1"], self.names(changes.added))
        self.assertIn("j1", self.names(changes.kept))

    def test_another_plugin(self):
        changes = self.changes(("j2:JSON", "j2:OPRINT"))
        self.assertEqual((["j2"], ["j2"]), (self.names(changes.removed), self.names(changes.added)))

    def test_inherited(self):
        """A default in [global] is an option of each output."""
        changes = self.changes(("[global]", "[global]\nqueue_rows=5000"))
        self.assertEqual(["j1", "j2"], self.names(changes.replaced))

    def test_section_of_a_collector(self):
        text = BASE.replace("j2:JSON", "e1:IPFIX") + "[e1]\ncollectors=near\n[collector:near]\nurl={}\n"
        old, new = graph(text.format("udp:127.0.0.1:1")), graph(text.format("udp:127.0.0.1:2"))
        changes = Changes.between(old, {node: wants(node) for node in old.nodes}, new)
        self.assertEqual(["e1:IPFIX is replaced, since [collector:near] url changed"], changes.lines())
