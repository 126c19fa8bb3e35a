"""The line of ``systemctl status``."""

from collections import Counter

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core import doubles
from tests.unit.core.doubles import numbers
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.operating.status_line import StatusLine


class StatusLineTests(SynchronousTestCase):
    """Two stacks, of which one may be left out."""

    def test_line(self):
        """Rows a second since the line before; what is lost or dropped stands there once there is something."""
        stacks = [(("a", "FLOWS"), ("x", "KEEP")), (("b", "FLOWS"), ("y", "KEEP"))]
        specs = [StackSpec(str(number), "t:1", stack) for number, stack in enumerate(stacks)]
        graph = Builder(doubles.lookup, doubles.read_options).build(specs)
        clock = Clock()
        line = StatusLine(lambda: graph, 2, clock.seconds)
        self.assertEqual("2 stacks run, 0 rows/s", line())
        clock.advance(2)
        graph.instances["a"].emit(numbers(3000, a=list(range(3000))))
        self.assertEqual("2 stacks run, 1,500 rows/s", line())
        clock.advance(1)
        graph.instances["b"].counters.lost = Counter(sequence=1000, kernel=234)
        graph.instances["x"].counters.dropped["stop_timeout"] += 7
        self.assertEqual("2 stacks run, 0 rows/s, lost 1,234, dropped 7", line())
        graph, _ = graph.without({graph.inputs[1]})
        self.assertEqual("1 of 2 stacks run, 0 rows/s, dropped 7", line())
