"""Tests of ulogd_tw.core.stack: trees, requests, mistakes, counters."""

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core import doubles
from tests.unit.core.doubles import numbers
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.stack import Builder, StackSpec, describe


def spec(text, line=1):
    """A stack line of test.conf."""
    parts = tuple(tuple(part.split(":")) for part in text.split(","))
    return StackSpec(text, f"test.conf:{line}", parts)


class StackTests(SynchronousTestCase):
    """Stacks of doubles."""

    def build(self, *stacks, asked=ALL):
        self.patch(doubles.KEEP, "asked", asked)
        self.builder = Builder(doubles.lookup, doubles.read_options, lambda key: ["IP2STR"] if key == "x.str" else [])
        return self.builder.build([spec(text, i + 1) for i, text in enumerate(stacks)])

    def mistakes(self, *stacks, asked=ALL):
        self.build(*stacks, asked=asked)
        return [str(m) for m in self.builder.mistakes]

    def test_one_input_feeds_all_its_stacks(self):
        """An input id is one instance; so is an output id; a beginning that is alike is computed once."""
        graph = self.build("f:FLOWS,h:HALF,k1:KEEP", "f:FLOWS,h:HALF,k2:KEEP", "f:FLOWS,k1:KEEP")
        self.assertEqual([n.ident for n in graph.nodes], ["f", "h", "k1", "k2"])
        graph.inputs[0].plugin.receive(numbers(4, a=[1, 2, 3, 4]))
        one, two = (graph.instances[i] for i in ("k1", "k2"))
        self.assertEqual(sorted(b.n for b in one.batches), [2, 4])
        self.assertEqual([b.columns["a"].tolist() for b in two.batches], [[1, 3]])
        self.assertEqual(graph.unaccounted(), {})
        self.assertEqual(graph.instances["h"].counters.rows_filtered, 2)

    def test_a_filter_after_another_beginning_is_another_instance(self):
        """The second instance of one id is called id#2."""
        graph = self.build("f:FLOWS,h:HALF,k1:KEEP", "g:FLOWS,h:HALF,k1:KEEP")
        self.assertEqual([n.ident for n in graph.filters], ["h", "h#2"])
        self.assertIsNot(graph.filters[0].plugin, graph.filters[1].plugin)

    def test_types_must_fit(self):
        """Raw packets do not go into an output of flows; the stack is left out, the other one runs."""
        graph = self.build("r:RAWS,k:KEEP", "f:FLOWS,k2:KEEP")
        self.assertEqual([s.spec.text for s in graph.stacks], ["f:FLOWS,k2:KEEP"])
        self.assertEqual(
            [str(m) for m in self.builder.mistakes],
            ["test.conf:1: stack r:RAWS,k:KEEP: k:KEEP takes packet|flow, but r:RAWS gives raw; put BASE between them"],
        )

    def test_all_mistakes_are_told_at_once(self):
        """Each with its place."""
        found = self.mistakes("f:NOPE,k:KEEP", "f:FLOWS,g:NEITHER,k:KEEP", "k:KEEP")
        self.assertEqual(len(found), 3)
        self.assertTrue(found[1].startswith("test.conf:2: stack f:FLOWS,g:NEITHER,k:KEEP: there is no plugin NEITHER"))

    def test_an_unmet_request_names_who_would_provide_it(self):
        """So the administrator knows what to put into the stack."""
        (found,) = self.mistakes("f:FLOWS,k:KEEP", asked={"x.str": True})
        self.assertIn("k:KEEP needs x.str, which no plugin above it provides; IP2STR does", found)

    def test_an_unmet_request_names_the_nearest_key(self):
        """A slip of the pen is recognised."""
        (found,) = self.mistakes("f:FLOWS,k:KEEP", asked={"orig.ip.sadr": True})
        self.assertIn("did you mean orig.ip.saddr?", found)

    def test_only_what_is_asked_is_wanted(self):
        """The union over all stacks, by the names of the input."""
        graph = self.build("f:FLOWS,k:KEEP", asked={"sourceAddress": True, "flowStartMilliseconds": False})
        self.assertEqual(graph.instances["f"].wanted, {"orig.ip.saddr", "flow.start.sec", "flow.start.usec"})
        self.assertIn("f:FLOWS: flowStartMilliseconds, sourceAddress", describe(graph))

    def test_an_input_of_any_element_is_asked_by_its_elements(self):
        """orig.ip.saddr of a collector is the IPv4 or the IPv6 source address."""
        graph = self.build("c:ANY,k:KEEP", asked={"orig.ip.saddr": True, "e9id77": True})
        self.assertEqual(graph.instances["c"].wanted, {"sourceIPv4Address", "sourceIPv6Address", "srcaddr", "e9id77"})

    def test_all_goes_up_to_the_input(self):
        """As names where the input knows its keys, as ALL where a peer decides."""
        graph = self.build("f:FLOWS,h:HALF,k:KEEP", "c:ANY,k2:KEEP")
        self.assertEqual(graph.instances["f"].wanted, {key.name for key in doubles.FLOWS.provides})
        self.assertIs(graph.instances["c"].wanted, ALL)

    def test_hidden_keys_come_only_by_name(self):
        """ALL leaves them out, a request by name brings them, whichever of the two comes first."""
        self.patch(doubles.FLOWS, "hidden", frozenset({"a", "orig.raw.pktlen"}))
        self.patch(doubles.KEEP, "requests", lambda keep, wanted: {"a": True} if keep.instance == "named" else ALL)
        graph = self.build("f:FLOWS,k:KEEP", "f:FLOWS,named:KEEP")
        self.assertIn("a", graph.instances["f"].wanted)
        self.assertNotIn("orig.raw.pktlen", graph.instances["f"].wanted)
        self.assertIn("orig.ip.saddr", graph.instances["f"].wanted)

    def test_hidden_keys_reach_only_the_stacks_that_ask(self):
        """Another stack's request does not change what an output of all keys sees; one of its own stack does."""
        self.patch(doubles.FLOWS, "hidden", frozenset({"a"}))
        self.patch(doubles.KEEP, "requests", lambda keep, wanted: {"a": True} if keep.instance == "named" else ALL)
        self.patch(doubles.HALF, "may_use", ("a",))
        graph = self.build("f:FLOWS,k:KEEP", "f:FLOWS,named:KEEP", "f:FLOWS,h:HALF,below:KEEP")
        graph.inputs[0].plugin.receive(numbers(2, a=[1, 2], b=[3, 4]))
        seen = {name: list(graph.instances[name].batches[0].schema) for name in ("k", "named", "below")}
        self.assertEqual({"k": ["b"], "named": ["a", "b"], "below": ["a", "b"]}, seen)

    def test_key_at_instance_chooses_another_provider(self):
        """Although a nearer plugin gives a key of the same name."""
        graph = self.build("f:FLOWS,c:COVER,k:KEEP", asked={"a": True, "a@f": True})
        graph.inputs[0].plugin.receive(numbers(2, a=[1, 2]))
        keep = graph.instances["k"]
        self.assertEqual(keep.find(keep.batches[0], "a").values.tolist(), [7, 7])
        self.assertEqual(keep.find(keep.batches[0], "a@f").values.tolist(), [1, 2])

    def test_an_instance_that_is_not_above_is_a_mistake(self):
        (found,) = self.mistakes("f:FLOWS,k:KEEP", asked={"a@x": True})
        self.assertIn("needs a@x, but there is no x above it", found)

    def test_a_fault_of_a_filter_stops_nothing_else(self):
        """Its rows are counted, it is reported, and the other stack gets its rows."""
        graph = self.build("f:FLOWS,x:FAILS,k1:KEEP", "f:FLOWS,k2:KEEP")
        reported = []
        for node in graph.nodes:
            node.report = lambda plugin, error: reported.append((plugin.instance, type(error)))
        graph.inputs[0].plugin.receive(numbers(3, a=[1, 2, 3]))
        self.assertEqual(reported, [("x", ZeroDivisionError)])
        self.assertEqual(graph.instances["x"].counters.dropped, {"error": 3})
        self.assertEqual(graph.instances["k2"].counters.rows_written, 3)
        self.assertEqual(graph.unaccounted(), {})

    def test_an_output_knows_the_losses_above_it(self):
        """Those of every instance on its ways and its own, by instance and reason; none of other stacks."""
        graph = self.build("f:FLOWS,h:HALF,x:FAILS,k1:KEEP", "g:FLOWS,k1:KEEP", "i:FLOWS,x2:FAILS,k2:KEEP")
        for name in "fgi":
            graph.instances[name].counters.lost.allow("kernel")
        graph.instances["f"].counters.lost["kernel"] = 7
        graph.instances["g"].counters.lost["kernel"] = 2
        graph.instances["i"].counters.lost["kernel"] = 1
        for node in graph.nodes:
            node.report = lambda plugin, error: None
        graph.inputs[0].plugin.receive(numbers(4, a=[1, 2, 3, 4]))
        graph.instances["k1"].counters.dropped["queue_full"] = 5
        self.assertEqual(
            {"f lost.kernel": 7, "g lost.kernel": 2, "x dropped.error": 2, "k1 dropped.queue_full": 5},
            graph.instances["k1"].losses(),
        )
        self.assertEqual({"i lost.kernel": 1}, graph.instances["k2"].losses())

    def test_without_takes_out_the_stacks_of_a_node(self):
        """An output that cannot open takes its stack with it, and nothing else."""
        graph = self.build("f:FLOWS,h:HALF,k1:KEEP", "f:FLOWS,k2:KEEP")
        broken = next(n for n in graph.outputs if n.ident == "k1")
        rest, gone = graph.without({broken})
        self.assertEqual([s.spec.text for s in gone], ["f:FLOWS,h:HALF,k1:KEEP"])
        self.assertEqual([n.ident for n in rest.nodes], ["f", "k2"])
        rest.inputs[0].plugin.receive(numbers(1, a=[1]))
        self.assertEqual(rest.unaccounted(), {})

    def test_parts_share_no_instance(self):
        """What belongs together stops together; inputs to which peers connect stop last."""
        self.patch(doubles.ANY, "listens", True)
        graph = self.build("c:ANY,k1:KEEP", "f:FLOWS,k2:KEEP", "g:FLOWS,k3:KEEP", "f:FLOWS,h:HALF,k3:KEEP")
        parts = [[s.spec.text for s in part.stacks] for part in graph.parts()]
        self.assertEqual(parts, [["f:FLOWS,k2:KEEP", "g:FLOWS,k3:KEEP", "f:FLOWS,h:HALF,k3:KEEP"], ["c:ANY,k1:KEEP"]])
        self.assertEqual([n.ident for n in graph.parts()[0].nodes], ["f", "g", "h", "k2", "k3"])

    def test_one_id_for_two_plugins(self):
        """As in ulogd2, an id may stand for different plugins in different stacks; each is an instance."""
        graph = self.build("f:FLOWS,h:HALF,k:KEEP", "f:FLOWS,h:COVER,k:KEEP", "f:FLOWS,h:HALF,h:KEEP")
        names = sorted((node.ident, node.plugin.name) for node in graph.nodes)
        self.assertEqual([("f", "FLOWS"), ("h", "HALF"), ("h#2", "COVER"), ("h#3", "KEEP"), ("k", "KEEP")], names)

    def test_counters_see_a_row_that_vanished(self):
        """The balance is a real one: take a row away and it shows."""
        graph = self.build("f:FLOWS,k:KEEP")
        graph.inputs[0].plugin.receive(numbers(3, a=np.arange(3)))
        graph.instances["k"].counters.rows_written -= 1
        self.assertEqual(graph.unaccounted(), {"k": 1})
