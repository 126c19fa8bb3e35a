"""Messages on their way: one after the other, tried again, given up, counted."""

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.alerting.receivers import MOST_WAITING, TRIES, Receiver, Refused, for_alertmanager

MESSAGE = {"rule": "r", "state": "firing", "since": 1.5, "ended": None, "value": 2.0, "summary": "s",
           "labels": {"exporter.name": "a"}}  # fmt: skip


class ReceiverTests(SynchronousTestCase):
    """`Receiver` with a clock."""

    def setUp(self):
        self.clock, self.sent, self.answers = Clock(), [], []
        self.receiver = Receiver("webhook", self.send, self.clock)

    def send(self, message):
        self.sent.append(message["n"])
        answer = defer.Deferred()
        self.answers.append(answer)
        return answer

    def test_order(self):
        """The next one goes when the one before has arrived."""
        for n in range(3):
            self.receiver.put({"n": n})
        self.assertEqual([0], self.sent)
        for _ in range(3):
            self.answers[-1].callback(None)
            self.clock.advance(0)
        self.assertEqual(([0, 1, 2], 3, 0), (self.sent, self.receiver.sent, self.receiver.waiting))

    def test_again(self):
        """A failed one is tried again, later each time, and given up at last; the next one follows."""
        times = []
        self.receiver.put({"n": 0})
        self.receiver.put({"n": 1})
        while self.sent[-1] == 0:
            times.append(self.clock.seconds())
            self.answers[-1].errback(OSError("no"))
            calls = self.clock.getDelayedCalls()
            self.clock.advance(calls[0].getTime() - self.clock.seconds())
        self.assertEqual([0, 1, 3, 7, 15, 31, 63, 123], times)
        self.assertEqual(([0] * TRIES + [1], 1), (self.sent, self.receiver.lost["given_up"]))

    def test_refused(self):
        """One that will never be taken is not tried again."""
        self.receiver.put({"n": 0})
        self.answers[0].errback(Refused("it answers with the status 400"))
        self.clock.advance(1000)
        self.assertEqual(([0], 1, 0), (self.sent, self.receiver.lost["refused"], self.receiver.waiting))

    def test_bound(self):
        """Beyond the bound the oldest that waits is lost, and what is on its way is not."""
        for n in range(MOST_WAITING + 2):
            self.receiver.put({"n": n})
        self.assertEqual((MOST_WAITING, 2), (self.receiver.waiting, self.receiver.lost["queue_full"]))
        self.answers[0].callback(None)
        self.clock.advance(0)
        self.assertEqual([0, 3], self.sent)

    def test_stop(self):
        """What waits is counted, and nothing goes on."""
        self.receiver.put({"n": 0})
        self.receiver.put({"n": 1})
        self.receiver.stop()
        self.clock.advance(1000)
        self.assertEqual(([0], 2), (self.sent, self.receiver.lost["stopped"]))
        self.assertEqual([], self.clock.getDelayedCalls())


class AlertmanagerTests(SynchronousTestCase):
    """The body for API v2: https://github.com/prometheus/alertmanager, api/v2/openapi.yaml."""

    def test_body(self):
        """Times are RFC 3339; while it fires the end is four resends ahead, afterwards it is the end."""
        (firing,) = for_alertmanager(MESSAGE, 100.0)
        self.assertEqual({"alertname": "r", "exporter_name": "a"}, firing["labels"])
        self.assertEqual(
            ("1970-01-01T00:00:01.500000Z", "1970-01-01T00:05:40Z"), (firing["startsAt"], firing["endsAt"])
        )
        (ended,) = for_alertmanager(MESSAGE | {"state": "resolved", "ended": 60.0}, 100.0)
        self.assertEqual("1970-01-01T00:01:00Z", ended["endsAt"])
