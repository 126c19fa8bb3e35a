"""The service around a batch job: it ends when everything is written, and not before."""

from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core import doubles
from tests.unit.core.doubles import numbers
from ulogd_tw import service
from ulogd_tw.config import GLOBAL_OPTIONS
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec


class Reactor(task.Clock):
    """A clock that can be stopped."""

    running = True

    def stop(self):
        self.running = False


class BatchJobTests(SynchronousTestCase):
    """Two inputs, of which each ends the service, and outputs that take their time."""

    def setUp(self):
        self.reactor = Reactor()
        self.patch(service, "reactor", self.reactor)
        self.patch(service.signal, "signal", lambda *_: None)
        stacks = [(("a", "FLOWS"), ("x", "KEEP")), (("b", "FLOWS"), ("y", "KEEP"))]
        specs = [StackSpec(str(number), "t:1", stack) for number, stack in enumerate(stacks)]
        graph = Builder(doubles.lookup, doubles.read_options).build(specs)
        self.a, self.b, self.x, self.y = (graph.instances[name] for name in "abxy")
        self.a.exits = self.b.exits = True
        self.x.wait = True
        self.service = service.Ulogd(graph, Options(GLOBAL_OPTIONS, {"stop_timeout": 2.0}), clock=self.reactor.seconds)
        self.service.privilegedStartService()
        self.service.startService()

    def end(self, *inputs):
        for source in inputs:
            source.at_end = True
            source.ended()

    def test_the_last_input_ends_it(self):
        """One that is at its end waits for the other."""
        self.end(self.a)
        self.reactor.pump([0.1] * 9)
        self.assertTrue(self.reactor.running)
        self.end(self.b)
        self.reactor.pump([0.1] * 9)
        self.assertFalse(self.reactor.running)

    def test_a_slow_output_is_waited_for(self):
        """For as long as it gets on, far beyond stop_timeout."""
        self.a.receive(numbers(1, held=True, a=[0]))
        for value in range(1, 6):
            self.a.receive(numbers(1, held=True, a=[value]))
        self.end(self.a, self.b)
        for _ in range(2):
            self.reactor.pump([1.0] * 50)
            self.assertTrue(self.reactor.running)
            self.x.pending.pop(0).callback(None)
        self.reactor.pump([1.0])
        self.assertFalse(self.reactor.running)
        self.assertEqual(6, self.x.counters.rows_written)

    def test_an_output_that_hangs_is_given_up(self):
        """Nothing written for a minute: the stop goes on, which keeps or counts what is left."""
        self.a.receive(numbers(1, held=True, a=[0]))
        self.end(self.a, self.b)
        self.reactor.pump([1.0] * 59)
        self.assertTrue(self.reactor.running)
        self.reactor.pump([1.0] * 3)
        self.assertFalse(self.reactor.running)
