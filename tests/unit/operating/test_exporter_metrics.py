"""Numbers of exporters: bounded in labels, and those that grow never shrink."""

from types import SimpleNamespace

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.operating.exporter_metrics import OTHER, ExporterNumbers

peers = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=12)


def session(peer, messages=1, last=100.0, rows=(), lost=0, skewed=False):
    """A Transport Session with a domain for each number of rows."""
    domains = {n: SimpleNamespace(rows=r, templates={1: None}, skewed=skewed) for n, r in enumerate(rows)}
    return SimpleNamespace(peer=peer, messages=messages, malformed=0, lost=lost, last_received=last, domains=domains)


class NumbersTests(SynchronousTestCase):
    """The sums of sessions."""

    def found(self, numbers, sessions):
        plugin = SimpleNamespace(name="COLLECTOR", sessions=lambda: iter(sessions))
        graph = SimpleNamespace(inputs=[SimpleNamespace(ident="col1", plugin=plugin)])
        *_, found = numbers.of(graph)
        self.assertLessEqual({key[:2] for key in found}, {("col1", "COLLECTOR")})
        return {key[2]: sums for key, sums in found.items()}

    def test_sums(self):
        """Sessions and domains of one address together; silence is that of the one heard last."""
        numbers = ExporterNumbers(5, lambda: 130.0)
        sessions = [session("192.0.2.1", 3, 100.0, (4, 5), 2), session("192.0.2.1", 4, 120.0, (1,), 1, True),
                    session("192.0.2.2", last=0.0)]  # fmt: skip
        found = self.found(numbers, sessions)
        self.assertEqual({"messages": 7, "records": 10, "malformed": 0, "missing": 3, "templates": 3,
                          "silent_seconds": 10.0, "clock_wrong": 1.0}, found["192.0.2.1"])  # fmt: skip
        self.assertEqual((1, 0.0), (found["192.0.2.2"]["messages"], found["192.0.2.2"]["silent_seconds"]))

    def test_labels(self):
        """Those that have a label keep it; a free one goes to another exporter."""
        numbers = ExporterNumbers(2)
        a, b, c, d = (session(f"192.0.2.{n}", n) for n in range(1, 5))
        self.assertEqual({"192.0.2.2", "192.0.2.3", OTHER}, set(self.found(numbers, [b, c, d])))
        found = self.found(numbers, [a, d, c, b])
        self.assertEqual(({"192.0.2.2", "192.0.2.3", OTHER}, 5), (set(found), found[OTHER]["messages"]))
        self.assertEqual({"192.0.2.1", "192.0.2.3", OTHER}, set(self.found(numbers, [a, c, d])))

    @given(st.lists(peers, max_size=8))
    def test_growing(self, scrapes):
        """A number that grows never shrinks while its label is there, whatever sessions come and go."""
        numbers, before = ExporterNumbers(3), {}
        for sessions in scrapes:
            found = self.found(numbers, [session(str(peer), messages) for peer, messages in sessions])
            self.assertLessEqual(len(found), 4)
            for label, sums in found.items():
                self.assertGreaterEqual(sums["messages"], before.get(label, 0))
            before = {label: sums["messages"] for label, sums in found.items()}
            self.assertGreaterEqual(sum(before.values()), sum(messages for _, messages in sessions))
