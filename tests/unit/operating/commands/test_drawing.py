"""Drawings of the graph: of a configuration and of a running one, as text and as DOT."""

import contextlib
import io
import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.operating.test_inspection import Running
from ulogd_tw.operating.commands import drawing, tree
from ulogd_tw.operating.topology import described

FOREST = """[global]
stack=col1:COLLECTOR,agg1:AGGREGATE,json1:JSON
stack=col1:COLLECTOR,json2:JSON
stack=demo1:DEMO,agg2:AGGREGATE,json1:JSON
[agg1]
key=sourceAddress
[agg2]
key=sourceAddress
[json1]
file=stdout
[json2]
file=stdout
"""
DRAWN = """\
col1:COLLECTOR
├─ agg1:AGGREGATE
│  └─ json1:JSON
└─ json2:JSON
demo1:DEMO
└─ agg2:AGGREGATE
   └─ json1:JSON
"""
PLAIN = """\
col1:COLLECTOR
|- agg1:AGGREGATE
|  `- json1:JSON
`- json2:JSON
demo1:DEMO
`- agg2:AGGREGATE
   `- json1:JSON
"""


class OfConfigurationTests(SynchronousTestCase):
    """A configuration file, without a service."""

    def draw(self, text, *words, encoding="utf-8"):
        """Status and drawing."""
        path = Path(self.mktemp())
        path.write_text(text)
        octets = io.BytesIO()
        out = io.TextIOWrapper(octets, encoding)
        with contextlib.redirect_stderr(io.StringIO()):
            status = tree.run(tree.parse(["graph", str(path), *words]), out)
        out.flush()
        return status, octets.getvalue().decode(encoding)

    def test_tree(self):
        """Common beginnings are drawn once; an output of two stacks stands below both."""
        self.assertEqual((0, DRAWN), self.draw(FOREST))

    def test_plain_terminal(self):
        """A terminal without Unicode gets other lines."""
        self.assertEqual((0, PLAIN), self.draw(FOREST, encoding="ascii"))

    def test_dot(self):
        """Each instance is a node and each way an edge, and every bracket is closed."""
        status, said = self.draw(FOREST, "--dot")
        self.assertEqual(0, status)
        nodes = re.findall(r'^  "(\w+)" \[label="(\w+:\w+)"', said, re.M)
        self.assertEqual(["agg1", "agg2", "col1", "demo1", "json1", "json2"], sorted(name for name, _ in nodes))
        edges = re.findall(r'^  "(\w+)" -> "(\w+)";$', said, re.M)
        self.assertEqual({("col1", "agg1"), ("agg1", "json1"), ("col1", "json2"), ("demo1", "agg2"),
                          ("agg2", "json1")}, set(edges))  # fmt: skip
        self.assertTrue(said.startswith("digraph") and said.endswith("}\n"))

    def test_json(self):
        """The form of the service's answer."""
        found = json.loads(self.draw(FOREST, "--json")[1])
        node = next(node for node in found["nodes"] if node["node"] == "json1")
        self.assertEqual(("JSON", "output", [0, 2]), (node["plugin"], node["kind"], node["stacks"]))

    def test_mistake(self):
        """A stack with a mistake is not drawn; without any stack the status is 1, without a file 2."""
        status, said = self.draw(FOREST.replace("col1:COLLECTOR,json2", "col1:COLECTOR,json2"))
        self.assertEqual((0, DRAWN.replace("├─ agg1", "└─ agg1").replace("│", " ").replace("└─ json2:JSON\n", "", 1)),
                         (status, said))  # fmt: skip
        self.assertEqual((1, ""), self.draw("[global]\nstack=x\n"))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(2, tree.run(tree.parse(["graph", "/nonexistent"]), io.StringIO()))
        self.assertIn("cannot be read", said.getvalue())


class OfServiceTests(SynchronousTestCase):
    """A graph through which rows have gone."""

    def setUp(self):
        running = Running("in1:PORTS,odd1:ODD,out1:SINK", "in1:PORTS,odd1:ODD,out2:SINK", "in1:PORTS,out3:SINK")
        running.graph.inputs[0].plugin.give(1, 2, 3)
        self.graph = running.graph

    def test_figures(self):
        """An edge has the rows that went over it; what is given up and what waits stands with the instance."""
        counters = self.graph.instances["out3"].counters
        counters.dropped["error"] = 1500
        counters.lost.allow("sequence")
        counters.lost["sequence"] = 2
        counters.rows_waiting = 7
        opened = set(self.graph.nodes) - {node for node in self.graph.nodes if node.ident == "out2"}
        self.assertEqual(
            ["in1:PORTS  3 rows", "├─ odd1:ODD  3 rows", "│  ├─ out1:SINK  2 rows", "│  └─ out2:SINK  2 rows, not open",
             "└─ out3:SINK  3 rows, 1.5k dropped, 2 lost, 7 waiting"],
            list(drawing.tree(described(self.graph, opened))),
        )  # fmt: skip

    def test_shared(self):
        """What lies below an instance of several inputs is drawn once."""
        graph = {
            "nodes": [self.node(name, kind) for name, kind in
                      (("a", "input"), ("b", "input"), ("f", "filter"), ("o", "output"))],
            "edges": [{"from": "a", "to": "f"}, {"from": "b", "to": "f"}, {"from": "f", "to": "o"}],
        }  # fmt: skip
        self.assertEqual(["a:P", "└─ f:P", "   └─ o:P", "b:P", "└─ f:P (as above)"],
                         list(drawing.tree(graph, planned=True)))  # fmt: skip

    def test_odd_names(self):
        """A name cannot steer the terminal, nor leave its quotes."""
        graph = {"nodes": [self.node('a"\x1b[2J', "input")], "edges": []}
        self.assertEqual(['a"\\x1b[2J:P'], list(drawing.tree(graph, planned=True)))
        self.assertIn('"a\\"\\\\x1b[2J" [label="a\\"\\\\x1b[2J:P"', "\n".join(drawing.dot(graph, True)))

    def node(self, name, kind):
        return {"node": name, "plugin": "P", "kind": kind, "counters": {}, "waiting": 0, "open": True}
