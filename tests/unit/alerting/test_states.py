"""The states of alerts over time."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.alerting.states import FIRING, PENDING, RESOLVED, States

A, B = (("k", "a"),), (("k", "b"),)


class StatesTests(SynchronousTestCase):
    """Pending, firing, resolved."""

    def test_at_once(self):
        """Without for and keep an alert fires at the first true look, and ends at the first untrue one."""
        states = States("r", 0, 0, 10)
        (fires,) = states.update(100, {A: 5.0})
        self.assertEqual((FIRING, 5.0, 100), (fires.state, fires.value, fires.fired))
        self.assertEqual([], states.update(110, {A: 6.0}))
        (ends,) = states.update(120, {})
        self.assertEqual((RESOLVED, 120), (ends.state, ends.ended))
        self.assertEqual([ends], states.listed())
        self.assertEqual([], states.update(120 + 3600, {}) + states.listed())

    def test_pending(self):
        """It waits for `for`; a condition that ends before says nothing."""
        states = States("r", 30, 0, 10)
        self.assertEqual([], states.update(0, {A: 1.0}))
        self.assertEqual(PENDING, states.alerts[A].state)
        self.assertEqual([], states.update(10, {}))
        self.assertEqual([], states.update(20, {A: 1.0}) + states.update(49, {A: 1.0}))
        self.assertEqual(1, len(states.update(50, {A: 1.0})))

    def test_flapping(self):
        """With keep, a value that goes up and down fires once and ends once."""
        states, changes = States("r", 0, 30, 10), []
        for now in range(0, 200, 10):
            changes += states.update(now, {A: 1.0} if now % 20 == 0 and now < 100 else {})
        self.assertEqual([80 + 10 + 30], [alert.ended for alert in changes[1:]])
        self.assertEqual(2, len(changes))

    def test_bound(self):
        """Beyond the bound keys are counted, and those that fire stay."""
        states = States("r", 0, 0, 1)
        states.update(0, {A: 1.0})
        self.assertEqual([], states.update(1, {B: 9.0, A: 1.0}, 3))
        self.assertEqual((4, 1), (states.beyond, states.firing))
