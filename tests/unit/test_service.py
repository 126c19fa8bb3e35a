"""The service around a batch job, which ends when everything is written; and around instances with faults."""

import signal
from functools import partial
from types import SimpleNamespace

from twisted.internet import task
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core import doubles
from tests.unit.core.doubles import numbers
from ulogd_tw import service
from ulogd_tw.core.graph import Graph
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.global_options import GLOBAL_OPTIONS


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


class FaultTests(SynchronousTestCase):
    """Instances with a fault of their own beside good ones."""

    def setUp(self):
        self.reactor = Reactor()
        self.patch(service, "reactor", self.reactor)
        self.patch(service.signal, "signal", lambda *_: None)
        stacks = [(("a", "FLOWS"), ("x", "KEEP")), (("b", "FLOWS"), ("y", "KEEP"))]
        specs = [StackSpec(str(number), "t:1", stack) for number, stack in enumerate(stacks)]
        self.graph = Builder(doubles.lookup, doubles.read_options).build(specs)

    def start(self):
        """The service, with nothing that ended it."""
        fatal = []
        made = service.Ulogd(self.graph, Options(GLOBAL_OPTIONS, {}), clock=self.reactor.seconds, on_fatal=fatal.append)
        made.privilegedStartService()
        made.startService()
        self.assertEqual([], fatal)
        return made

    def raising(self):
        """A fault of ours, of no kind that a plugin announces."""
        raise KeyError("a fault")

    def test_open(self):
        """One that cannot be opened costs its stack; the other one runs, and what was opened of the first is closed."""
        for name in "bx":
            self.setUp()
            stopped = []
            self.graph.instances[name].open = self.raising
            self.graph.instances["y" if name == "b" else "a"].stop = partial(stopped.append, 1)
            made = self.start()
            good = "0" if name == "b" else "1"
            self.assertEqual([good], [stack.spec.text for stack in made.graph.stacks])
            self.assertIn("KeyError", made.left_out_texts()[0])
            self.assertEqual(int(name == "x"), len(stopped))

    def test_memory(self):
        """Tables without room are no error of the program: the text names the limits, at the start and later."""

        def full():
            raise MemoryError("Unable to allocate 64.0 GiB")

        self.graph.instances["a"].open = full
        made, said = self.start(), []
        self.patch(made, "log", SimpleNamespace(error=lambda form, **of: said.append(form.format(**of))))
        made.report(self.graph.instances["b"], MemoryError("Unable to allocate 32.0 GiB"))
        for text, size in ((made.left_out_texts()[0], 64), (said[0], 32)):
            self.assertIn(f"not enough memory: Unable to allocate {size}.0 GiB; make its limits smaller", text)
            self.assertNotIn("plugin itself", text)
            self.assertNotIn("Traceback", text)

    def test_stop_of_the_rest(self):
        """Also where what is left of its stack cannot be closed."""
        self.graph.instances["x"].open = self.graph.instances["a"].stop = self.raising
        self.assertEqual(["1"], [stack.spec.text for stack in self.start().graph.stacks])

    def test_no_wake_in_a_stop(self):
        """An input that takes time to stop is not woken meanwhile: its sockets may be closed already."""
        woken, source = [], self.graph.instances["a"]
        source.wake = lambda now: woken.append(now) or 0.5
        made = self.start()
        source.stop = lambda: task.deferLater(self.reactor, 1.5, int)
        node = next(node for node in made.graph.nodes if node.plugin is source)
        done = made.stop_node(node, 9.0)
        self.reactor.pump([0.5] * 4)
        self.successResultOf(done)
        self.assertEqual([0], woken)

    def test_begin(self):
        """An input that cannot begin hinders no other one."""
        begun = []
        self.graph.instances["a"].begin = self.raising
        self.graph.instances["b"].begin = lambda: begun.append(1)
        self.start()
        self.assertEqual(([1], 1), (begun, self.graph.instances["a"].counters.errors["KeyError"]))

    def test_question_log(self):
        """A log of questions that cannot be written is told at the start."""
        said = []
        self.patch(service.Ulogd, "log", Logger(observer=said.append))
        made = service.Ulogd(self.graph, Options(GLOBAL_OPTIONS, {}), clock=self.reactor.seconds)
        made.stores = {"s": SimpleNamespace(question_log="/nonexistent/log")}
        made.privilegedStartService()
        made.startService()
        expected = "[store:s] question_log: there is no directory /nonexistent; make it: mkdir -p /nonexistent; no"
        (text,) = [formatEvent(event) for event in said if event["log_level"] is LogLevel.error]
        self.assertTrue(text.startswith(expected), text)
        self.assertEqual(1, made.events.counts["mistake"])


class SignalTests(SynchronousTestCase):
    """SIGHUP and SIGUSR2, as the service does them."""

    def test_second_end(self):
        """Further signals that ask for the end are answered while it is under way, and not by Twisted."""
        handlers, reactor = {}, Reactor()
        reactor.callFromThread = lambda call: call()
        self.patch(service, "reactor", reactor)
        self.patch(service.signal, "signal", handlers.__setitem__)
        said = []
        self.patch(
            service.Ulogd, "log", SimpleNamespace(info=lambda text, **fields: said.append(text.format(**fields)))
        )
        made = service.Ulogd(Graph(), Options(GLOBAL_OPTIONS, {}), clock=reactor.seconds)
        self.successResultOf(made.stopService())
        for number in (signal.SIGTERM, signal.SIGINT):
            handlers[number](number, None)
        self.assertEqual(
            ["the stop is under way; it takes as long as rows are written, up to stop_timeout=10 s"] * 2, said
        )

    def test_inputs_catch_up(self):
        """Both hold for all that arrived before: inputs read first; the fault of one stops nothing else."""
        clock, done = Reactor(), []
        self.patch(service, "reactor", clock)
        specs = [StackSpec(name, "t:1", ((name, "FLOWS"), (f"k{name}", "KEEP"))) for name in "ab"]
        graph = Builder(doubles.lookup, doubles.read_options).build(specs)
        running = service.Ulogd(graph, Options(GLOBAL_OPTIONS), clock=clock.seconds)
        for node in graph.nodes:
            for call in ("catch_up", "reopen", "read_now"):
                setattr(node.plugin, call, partial(done.append, f"{node.ident} {call}"))

        def broken():
            raise OSError("no memory")

        graph.instances["a"].catch_up = broken
        running.read_now()
        self.assertEqual(done, ["b catch_up", "a read_now", "b read_now"])
        done.clear()
        running.reopen()
        self.assertEqual(done, ["b catch_up", "a reopen", "b reopen", "ka reopen", "kb reopen"])
        self.assertEqual(graph.instances["a"].counters.errors.total(), 2)
