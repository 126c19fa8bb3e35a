"""Malformed Messages: dropped whole, and nothing else with them."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import (
    COUNTER,
    VARIABLE,
    Collected,
    a_set,
    counts,
    counts_of,
    hexed,
    message,
    options_template,
    template,
    varying,
)


class MalformedTests(SynchronousTestCase):
    """ERR-1: a malformed Message is dropped whole: no record, no template, no domain of it stays."""

    told = a_set(2, COUNTER, template(257, (82, VARIABLE)))
    good = a_set(256, hexed("00000001"))

    def dropped(self, wrong, reason):
        """The Message does nothing but count; what is after it is read."""
        found = Collected()
        found.feed(message(self.told), counts(7))
        self.assertEqual([7], counts_of(found.rows(wrong)), reason)
        self.assertEqual({reason: 1}, found.errors)
        self.assertEqual("malformed", found.kinds[-1])
        self.assertIn(reason, found.decoder.events[-1].detail)
        self.assertEqual(1, found.decoder.malformed)
        self.assertEqual([8], counts_of(found.rows(counts(8, number=1))))
        self.assertEqual([], found.rows(message(a_set(300, b"\6"), number=2)))
        self.assertEqual({reason: 1, "no_template": 1}, found.errors)
        self.assertEqual([1], list(found.session.domains))

    def test_header(self):
        """MSG-1, MSG-2: version and length."""
        self.dropped(b"", "length")
        self.dropped(message(domain=5)[:15], "length")
        self.dropped(message(domain=5, length=15), "length")
        self.dropped(message(self.good, length=25), "length")
        for version in (0, 4, 6, 11, 0x0A0A):  # 8 is refused by its name
            self.dropped(message(self.good, version=version, domain=5), "version")

    def test_set_lengths(self):
        """SET-7: below 4, beyond the Message, or octets that are no set."""
        new = a_set(2, template(300, (4, 1)))
        for wrong in ("01000000", "01000003", "010000050001", "00020003", "ffffffff", "00"):
            octets_ = hexed(wrong)
            if wrong == "010000050001":
                octets_ = hexed("01000007") + b"12"
            self.dropped(message(self.good, new, octets_), "set_length")

    def test_templates(self):
        """Records that are cut: nothing of the set is learnt."""
        new = template(300, (4, 1))
        for wrong in (
            template(301, (4, 1))[:-1],
            template(301, (4, 1), (4, 1))[:-4],
            struct.pack("!HHHH", 301, 2, 4 | 0x8000, 4) + b"\0\0\0",
        ):
            self.dropped(message(self.good, a_set(2, new, wrong), self.good), "template")
        for wrong in (
            options_template(301, 1, (4, 1))[:-1],
            options_template(301, 1, (4, 1))[:5],
        ):
            self.dropped(message(self.good, a_set(2, new), a_set(3, wrong), self.good), "template")

    def test_one_template(self):
        """ERR-1: ids below 256, wrong scope counts, records of no octets cost that template and what had its id."""
        new, last = template(300, (4, 1)), template(302, (5, 1))
        data = a_set(300, b"\6"), a_set(302, b"\7")
        for set_id, wrong in (
            (2, template(255, (4, 1))),
            (2, template(257, (4, 0))),
            (2, template(257, (4, 0), (82, 0))),
            (2, struct.pack("!HHHHI", 257, 1, 4 | 0x8000, 0, 9)),
            (3, options_template(257, 0, (4, 1))),
            (3, options_template(257, 2, (4, 1))),
            (3, options_template(257, 1, (4, 0))),
        ):
            found = Collected().feed(message(self.told))
            news = (new, wrong, last) if set_id == 2 else (new, last)
            others = [] if set_id == 2 else [a_set(3, wrong)]
            rows = found.rows(message(self.good, a_set(2, *news), *others, *data), counts(2, number=3))
            self.assertEqual([{"octetDeltaCount": 1}, {"octetDeltaCount": 2}], rows[:2])
            self.assertEqual([{"protocolIdentifier": 6}, {"ipClassOfService": 7}], rows[2:])
            self.assertEqual(({"template": 1}, 0, 0), (found.errors, found.decoder.malformed, found.lost))
            (event,) = [event for event in found.decoder.events if event.kind == "template_unusable"]
            self.assertEqual(found.session.templates, 3 if event.template == 257 else 4)
            self.assertEqual([], found.rows(message(a_set(257, b"\2ab"), number=4)) if event.template == 257 else [])

    def test_cut_records(self):
        """A record of variable length that its set cuts, also beside good sets of the same and of other layouts."""
        cut = a_set(257, b"\2ab\3ab")
        whole = a_set(257, b"\2ab")
        for sets in ([cut], [self.good, cut], [cut, self.good], [whole, self.good, cut, whole]):
            self.dropped(message(*sets, number=1), "record")

    def test_cut_records_beside_templates(self):
        """A Message with templates and a cut record: the templates must not take effect, whichever template is cut."""
        new = a_set(2, template(300, (82, VARIABLE)), template(301, (4, 1)))
        self.dropped(message(new, a_set(300, b"\1a\2a")), "record")
        self.dropped(message(a_set(257, b"\1a\2a"), new), "record")
        self.dropped(message(a_set(2, template(256, (82, VARIABLE))), a_set(256, b"\5abcd")), "record")
        # After a withdrawal the id has no template, so that nothing can be cut.
        found = Collected()
        gone = a_set(2, hexed("00020000"))
        rows = found.rows(
            message(self.told), message(gone, a_set(2, template(300, (4, 1))), a_set(257, b"\2a"), a_set(300, b"\6"))
        )
        self.assertEqual([{"protocolIdentifier": 6}], rows)
        self.assertEqual({"no_template": 1}, found.errors)

    def test_others_untouched(self):
        """ERR-1: of many messages decoded together, only the malformed ones are missing."""
        for n in (3, 200):
            found = Collected().feed(message(self.told))
            expected, number = [], 0
            for i in range(n):
                text = b"%d" % i
                if i % 3 == 1:
                    found.feed(message(a_set(257, varying(text), b"\xff\x00\x09"), a_set(256, bytes(4)), number=number))
                    continue
                found.feed(message(a_set(257, varying(text), varying(b"")), self.good, number=number))
                number += 3
                expected += [text, b""]
            rows = found.rows()
            self.assertEqual(expected, [row["interfaceName"] for row in rows if "interfaceName" in row])
            self.assertEqual(len(expected) // 2, sum("octetDeltaCount" in row for row in rows))
            self.assertEqual(({"record": len(range(1, n, 3))}, 0), (found.errors, found.lost))
            self.assertEqual(len(rows), found.counters.rows_received)

    def test_trailing(self):
        """What follows a Message in its datagram is not looked at, and counted."""
        found = Collected(reliable=False)
        rows = found.rows(message(self.told), counts(1) + counts(2), counts(3, number=1) + b"\0")
        self.assertEqual([1, 3], counts_of(rows))
        self.assertEqual({"trailing": 2}, found.errors)
