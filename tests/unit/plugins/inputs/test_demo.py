"""DEMO: rows at the rate that was asked for, by a clock of the test's own."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.options import Options
from ulogd_tw.plugins.inputs.demo import DEMO


class Demo:
    """A DEMO and what it emits, (time, rows) each."""

    def __init__(self, **options):
        self.plugin = DEMO("d", Options(DEMO.all_options(), options))
        self.rows, self.batches, self.ended = 0, [], False
        self.plugin.emit = self.take
        self.plugin.ended = self.end
        self.plugin.begin()

    def take(self, batch):
        """A batch has come."""
        self.rows += batch.n
        self.batches.append(batch)

    def end(self):
        """The input says that it is at its end."""
        self.ended = True

    def pass_time(self, start, seconds, step=0.05):
        """Wake it as often as the service may."""
        for tick in range(round(seconds / step)):
            self.plugin.wake(start + tick * step)


class DemoTests(SynchronousTestCase):
    """The input."""

    def test_rate(self):
        """Rate times seconds rows, evenly, and none from the future."""
        demo = Demo(rate=200)
        demo.pass_time(1000.0, 10)
        self.assertEqual(2000, demo.rows)
        self.assertEqual(2000, demo.plugin.counters.rows_received)
        for batch in demo.batches:
            self.assertLessEqual(batch.columns["flowEndMilliseconds"].max(), batch.now * 1000)

    def test_seconds_and_exit(self):
        """The traffic ends after `seconds`, and with exit=1 the service is told so."""
        demo = Demo(rate=7, seconds=3, exit=True)
        demo.pass_time(0.0, 5)
        self.assertEqual((21, True, True), (demo.rows, demo.plugin.at_end, demo.ended))
        self.assertIsNone(demo.plugin.wake(6.0))

    def test_pause(self):
        """While a queue below is full nothing is invented; afterwards it goes on with the rate, not with a burst."""
        demo = Demo(rate=100)
        demo.pass_time(0.0, 1)
        demo.plugin.pause()
        demo.pass_time(1.0, 60)
        self.assertEqual(100, demo.rows)
        demo.plugin.resume()
        demo.pass_time(61.0, 1)
        self.assertEqual(200, demo.rows)

    def test_clock_goes_back(self):
        """A clock that is set back an hour stops nothing."""
        demo = Demo(rate=100)
        demo.pass_time(4000.0, 1)
        demo.pass_time(400.0, 1)
        self.assertEqual(200, demo.rows)

    def test_mistakes(self):
        """exit without seconds would never end."""
        self.assertEqual(["exit"], [name for name, _ in Demo(exit=True).plugin.mistakes()])
        self.assertEqual(["seconds"], [name for name, _ in Demo(seconds=-1).plugin.mistakes()])
