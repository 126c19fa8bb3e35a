"""Rests of a reactor between looks at a buffer, with the kernel and without it."""

import select
from types import SimpleNamespace

from hypothesis import strategies as st
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.transports import resting
from ulogd_tw.transports.resting import Resting


class Reactor(Clock):
    """A clock with the epoll of a reactor: a wait in it passes the time, and finds what `comes` says."""

    def __init__(self, comes=float("inf"), due=None):
        super().__init__()
        self._poller, self.comes, self.due = select.epoll(), comes, due

    def timeout(self):
        return self.due

    def poll(self, milliseconds):
        end = self.seconds() + milliseconds / 1000
        self.advance(max(min(end, self.comes) - self.seconds(), 0.0))
        return [(0, 1)] if self.comes <= end else []


class Source:
    """A buffer of 100 octets, filled with `speed` octets a second from `since` on."""

    has_meminfo, buffer = False, 100

    def __init__(self, clock, speed=0.0, since=0.0):
        self.clock, self.speed, self.since, self.looks = clock, speed, since, []

    def held(self):
        found = max(self.clock.seconds() - self.since, 0.0) * self.speed
        self.looks.append((self.clock.seconds(), found))
        return found


class RestingTests(SynchronousTestCase):
    """Resting without the kernel; an empty buffer fills within 0.1 s."""

    def make(self, speed=0.0, since=0.0, **reactor):
        self.clock = Reactor(**reactor)
        self.addCleanup(self.clock._poller.close)
        self.source = Source(self.clock, speed, since)
        made = Resting(self.clock, self.source)
        made.room, made._ready = 0.1, self.clock
        return made

    def test_over(self):
        """A rest with nothing to do ends with its time, after a look every 75 ms."""
        self.assertEqual(self.make().rest(0.25), 0.0)
        self.assertAlmostEqual(self.clock.seconds(), 0.25, 3)
        self.assertEqual([round(at, 3) for at, _ in self.source.looks], [0.0, 0.075, 0.15, 0.225])

    def test_work(self):
        """A descriptor of the reactor that is ready ends it; the next look comes when it would have come."""
        self.assertAlmostEqual(self.make(comes=0.1).rest(0.25), 0.05, 6)

    def test_timer(self):
        """Before a timer of the reactor the rest ends."""
        self.assertAlmostEqual(self.make(due=0.1).rest(0.25), 0.075, 6)
        self.assertAlmostEqual(self.clock.seconds(), 0.075, 6)

    def test_other_reactors(self):
        """A reactor without an epoll gets the time until the next look."""
        clock = Clock()
        made = Resting(clock, Source(clock))
        made.room = 0.1
        self.assertAlmostEqual(made.rest(0.25), 0.075)

    @given(st.floats(1, 1000), st.floats(0, 0.3))
    def test_any_burst(self, speed, since):
        """A burst of any speed finds room: three quarters are full at most when the buffer is read."""
        self.make(speed, since).rest(0.4)
        at, held = self.source.looks[-1]
        self.assertLessEqual(held, 75.001)
        self.assertTrue(held >= 25 or at > 0.3, (at, held))


class ReactorTests(SynchronousTestCase):
    """The reactor in use."""

    def test_epoll(self):
        """Twisted's reactor on Linux has what is asked of it."""
        made = EPollReactor()
        self.addCleanup(made._poller.close)
        self.assertIsNotNone(Resting(made, Source(made))._ready)
        self.assertIsNone(made.timeout())

    def test_kernel_in_use(self):
        """Where the kernels are compiled, a socket is looked at in there."""
        asked = []
        self.patch(resting, "lib", SimpleNamespace(ut_rest=lambda *numbers: asked.append(numbers) or 5e8))
        clock = Reactor(due=2.0)
        self.addCleanup(clock._poller.close)
        source = Source(clock)
        source.has_meminfo, source.fileno = True, lambda: 7
        made = Resting(clock, source)
        made.room = 0.1
        self.assertEqual(made.rest(0.25), 0.5)
        self.assertEqual(asked, [(clock._poller.fileno(), 7, 100, 10**8, 25 * 10**7, 2 * 10**9)])
