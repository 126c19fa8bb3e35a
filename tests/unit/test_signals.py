"""Signals while the service starts."""

import os
import signal
from types import SimpleNamespace

from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import signals


class SignalTests(SynchronousTestCase):
    """SIGHUP and SIGUSR2 before and after the service can answer them."""

    def setUp(self):
        for number in (*signals.ANSWERED, *signals.UNUSED):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signals._came.clear)
        self.answers = []

    def answer(self, number):
        """As the service does at the end of its start."""
        signals.answer(number, lambda: self.answers.append(number))

    def test_early(self):
        """Signals that came before are answered once, each by its own answer."""
        signals.remember()
        for number in (signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
        self.assertEqual([], self.answers)
        self.answer(signal.SIGUSR2)
        self.assertEqual([], self.answers)
        self.answer(signal.SIGHUP)
        self.assertEqual([signal.SIGHUP], self.answers)
        self.answer(signal.SIGHUP)
        self.assertEqual([signal.SIGHUP], self.answers)

    def test_later(self):
        """Afterwards each is answered when it comes."""
        signals.remember()
        self.answer(signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual([signal.SIGUSR2] * 2, self.answers)

    def test_two_ends(self):
        """Two signals in one moment stop the reactor once; where it does not run, the mistake of ours is seen."""
        stops = []

        def stop():
            if stops or not reactor.running:
                raise ReactorNotRunning
            stops.append(1)

        reactor = SimpleNamespace(running=True, stop=stop)
        signals.stop_once(reactor)
        reactor.stop()
        reactor.stop()
        self.assertEqual([1], stops)
        reactor.running = False
        self.assertRaises(ReactorNotRunning, reactor.stop)

    def test_unused(self):
        """What scripts for ulogd2 send, such as `reload` of Gentoo's, does not end the process."""
        signals.remember()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGALRM)

    def test_a_command_that_prints(self):
        """It ends with its terminal, as every other program."""
        signals.remember()
        signals.forget()
        self.assertEqual([signal.SIG_DFL] * 2, [signal.getsignal(number) for number in signals.ANSWERED])
