"""The two clocks, and what happens when somebody sets the one on the wall."""

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core import doubles
from ulogd_tw import service
from ulogd_tw.clocks import WallClock, make_steady
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.global_options import GLOBAL_OPTIONS


class WallClockTests(SynchronousTestCase):
    """`WallClock`."""

    def setUp(self):
        self.wall, self.steady = 1000.0, 5.0
        self.clock = WallClock(lambda: self.wall, lambda: self.steady)

    def test_time_that_goes_by(self):
        """It is no step, nor is a clock that is slewed."""
        for passed, shown in ((1.0, 1.0), (3600.0, 3600.1), (0.0, 0.0)):
            self.steady += passed
            self.wall += shown
            self.assertEqual(0.0, self.clock.step())
        self.assertEqual(self.wall, self.clock.now())

    def test_steps(self):
        """Each is told once, in both directions, however much time goes by beside it."""
        for step in (3600.0, -3600.0, -0.75, 86400.0):
            self.steady += 2.0
            self.wall += 2.0 + step
            self.assertAlmostEqual(step, self.clock.step())
            self.assertEqual(0.0, self.clock.step())


class SteadyReactorTests(SynchronousTestCase):
    """`make_steady`."""

    def test_timers(self):
        """Timers of Twisted fire by the monotonic clock, where the wall clock is set back an hour meanwhile."""

        class Reactor(ReactorBase):
            """Without sockets."""

            def installWaker(self):
                """None is needed."""

        reactor, fired = Reactor(), []
        make_steady(reactor)
        now = time.monotonic()
        self.patch(time, "monotonic", lambda: now)
        make_steady(reactor)
        reactor.callLater(1.0, fired.append, 1)
        self.patch(time, "time", lambda: 0.0)
        reactor.runUntilCurrent()
        self.assertEqual([], fired)
        now += 1.5
        reactor.runUntilCurrent()
        self.assertEqual([1], fired)


class ServiceTests(SynchronousTestCase):
    """Who is told."""

    def test_plugins_are_told(self):
        """Each plugin once, before it is woken; the log says so."""
        reactor, told = Clock(), []
        self.ahead = 1000.0
        self.patch(service, "reactor", reactor)
        self.patch(service.signal, "signal", lambda *_: None)
        builder = Builder(doubles.lookup, doubles.read_options)
        graph = builder.build([StackSpec("s", "t:1", (("a", "FLOWS"), ("x", "KEEP")))])
        for node in graph.nodes:
            node.plugin.wake = lambda now: 1.0
            node.plugin.clock_set = lambda now, step, name=node.plugin.instance: told.append((name, now, step))
        made = service.Ulogd(
            graph, Options(GLOBAL_OPTIONS, {}), clock=lambda: self.ahead + reactor.seconds(),
        )  # fmt: skip
        made.privilegedStartService()
        made.startService()
        reactor.pump([1.0] * 3)
        self.assertEqual([], told)
        self.ahead -= 3600.0
        reactor.pump([1.0] * 3)
        self.assertEqual([("a", -2596.0, -3600.0), ("x", -2596.0, -3600.0)], told)
