"""Templates learnt, changed and withdrawn; what a peer may make us remember."""

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
)
from ulogd_tw.ipfix.decoder import Limits


class TemplateLifeTests(SynchronousTestCase):
    """Templates learnt, sent again, changed, withdrawn: requirements TPL, WD and UDPT."""

    told = message(a_set(2, COUNTER))
    data = message(a_set(256, hexed("00000005")))

    def test_again(self):
        """WD-5: an identical template again changes nothing; it is an event only where it was not to be expected."""
        for reliable, events in ((True, ["template_again"] * 2), (False, [])):
            found = Collected(reliable=reliable).feed(*[self.told] * 3)
            self.assertEqual(["domain", "template", *events], found.kinds)
            self.assertEqual([5], counts_of(found.rows(self.data)))

    def test_changed(self):
        """WD-6, UDPT-4: a different template for an id replaces it at once; records before it are the old one's."""
        for reliable in (True, False):
            found = Collected(reliable=reliable)
            changed = message(a_set(2, template(256, (2, 4))), number=1)
            rows = found.rows(self.told, self.data, changed, message(a_set(256, hexed("00000006")), number=1))
            self.assertEqual([{"octetDeltaCount": 5}, {"packetDeltaCount": 6}], rows)
            self.assertIn("template_changed", found.kinds)
            # And back, although those very octets were seen before.
            self.assertEqual([5], counts_of(found.rows(message(a_set(2, COUNTER), number=2), counts(5, number=2))))

    def test_withdrawn(self):
        """WD-1, WD-3: on a reliable session the template is gone; actions apply in their order in the Message."""
        withdrawal = struct.pack("!HH", 256, 0)
        found = Collected()
        rows = found.rows(self.told, message(self.data[16:], a_set(2, withdrawal), self.data[16:]))
        self.assertEqual([{"octetDeltaCount": 5}], rows)
        self.assertEqual({"no_template": 1}, found.errors)
        self.assertIn("template_withdrawn", found.kinds)
        # Reuse of the id in the same set, with padding after it.
        rows = found.rows(
            message(a_set(2, template(256, (2, 4)), withdrawal, template(256, (4, 1)), bytes(4)), a_set(256, b"\6"))
        )
        self.assertEqual([{"protocolIdentifier": 6}], rows)

    def test_all_withdrawn(self):
        """WD-2: id 2 takes all data templates of the domain, id 3 all options templates."""
        told = message(a_set(2, COUNTER, template(257, (4, 1))), a_set(3, options_template(258, 1, (5, 1))))
        data = message(a_set(256, bytes(4)), a_set(257, bytes(1)), a_set(258, bytes(1)))
        for sets, left in (
            ([a_set(2, hexed("00020000"))], ["ipClassOfService"]),
            ([a_set(3, hexed("00030000"))], ["octetDeltaCount", "protocolIdentifier"]),
            ([a_set(2, hexed("00020000")), a_set(3, hexed("00030000"))], []),
        ):
            found = Collected().feed(told, message(*sets, domain=2))
            self.assertEqual(3, len(found.rows(data)))
            rows = found.rows(message(*sets, number=3), data)
            self.assertEqual(left, [name for row in rows for name in row])

    def test_wrong_withdrawal(self):
        """WD-4: of an unknown template, or of the other kind: ignored and counted; with a wrong id: left out."""
        found = Collected().feed(self.told, message(a_set(2, hexed("01010000"))), message(a_set(3, hexed("01000000"))))
        self.assertEqual([5], counts_of(found.rows(self.data)))
        self.assertEqual({"withdrawal_unknown": 2}, found.errors)
        for wrong in ("00030000", "0000000001000000", "00ff0000"):
            found = Collected().feed(message(a_set(2, hexed(wrong))))
            self.assertEqual({"template": 1}, found.errors)

    def test_withdrawal_over_udp(self):
        """UDPT-3: ignored."""
        found = Collected(reliable=False)
        found.feed(self.told, message(a_set(2, hexed("01000000"))), message(a_set(2, hexed("00020000"))))
        self.assertEqual([5], counts_of(found.rows(self.data)))
        self.assertEqual({"withdrawal_ignored": 2}, found.errors)

    def test_one_space_of_ids(self):
        """TPL-1: an options template takes the id of a data template over."""
        found = Collected()
        told = message(a_set(3, options_template(256, 1, (2, 4))))
        self.assertEqual([{"packetDeltaCount": 5}], found.rows(self.told, told, self.data))

    def test_unchanged_is_cheap(self):
        """Template Sets that were seen since the last change are not read again."""
        found = Collected().feed(self.told)
        domain = found.session.domains[1]
        before = domain.templates[256]
        found.feed(self.told, message(a_set(2, template(257, (4, 1)))), self.told, self.told)
        self.assertIs(before, domain.templates[256])
        self.assertEqual({a_set(2, COUNTER), a_set(2, template(257, (4, 1)))}, set(domain.announced))


class LimitTests(SynchronousTestCase):
    """ERR-6: what a peer may make us remember is bounded; what is beyond is refused and counted."""

    def test_templates(self):
        """ERR-6: more templates of a domain than the limit are refused; those that are known stay, and may change."""
        found = Collected(limits=Limits(templates=2))
        for ident in (256, 257, 258, 259):
            found.feed(message(a_set(2, template(ident, (4, 1)))))
        self.assertEqual({"limit_templates": 2}, found.errors)
        self.assertEqual(2, len(found.rows(message(*(a_set(i, b"\6") for i in (256, 257, 258, 259))))))
        # A known id may still change.
        self.assertEqual([{"ipVersion": 6}], found.rows(message(a_set(2, template(256, (60, 1))), a_set(256, b"\6"))))

    def test_domains(self):
        """ERR-6: more domains of a session than the limit are refused with all that they send."""
        found = Collected(limits=Limits(domains=2))
        messages = [message(a_set(2, COUNTER), a_set(256, bytes(4)), domain=d) for d in (1, 2, 3, 4)]
        self.assertEqual(2, len(found.rows(*messages)))
        self.assertEqual(({"limit_domains": 2}, {1, 2}), (found.errors, set(found.session.domains)))

    def test_fields(self):
        """Also: a refused change leaves no old template behind, which would read the new records wrongly."""
        found = Collected(limits=Limits(fields=2))
        two, three = template(256, (4, 1), (5, 1)), template(256, (4, 1), (5, 1), (6, 1))
        self.assertEqual(1, len(found.rows(message(a_set(2, two), a_set(256, b"ab")))))
        self.assertEqual([], found.rows(message(a_set(2, three)), message(a_set(256, b"abc"))))
        self.assertEqual({"limit_fields": 1, "no_template": 1}, found.errors)

    def test_session_fields(self):
        """Fields are given back when templates are replaced, withdrawn or forgotten."""
        found = Collected(limits=Limits(session_fields=3))
        two = a_set(2, template(256, (4, 1), (5, 1)))
        for domain in (1, 2):
            found.feed(message(two, domain=domain))
        self.assertEqual({"limit_session_fields": 1}, found.errors)
        found.feed(message(a_set(2, hexed("01000000"))), message(two, domain=2))
        found.feed(message(a_set(2, template(256, (4, 1))), domain=2), message(a_set(2, template(256, (5, 1), (6, 1)))))
        self.assertEqual({"limit_session_fields": 1}, found.errors)
        self.assertEqual(3, found.session.fields)
        found.decoder.forget(found.session)
        self.assertEqual((0, 0), (found.session.fields, found.session.announced_octets))

    def test_announced_octets(self):
        """Sets that there is no room to remember are read each time, and room is given back."""
        found = Collected(limits=Limits(announced_octets=20))
        found.feed(*(message(a_set(2, template(i, (4, 1)))) for i in (256, 257, 256, 257)))
        self.assertEqual(12, found.session.announced_octets)
        found.feed(message(a_set(2, template(256, (5, 1)))))
        self.assertEqual(12, found.session.announced_octets)
        self.assertEqual(2, len(found.session.domains[1].templates))

    def test_layouts(self):
        """Compiled layouts are forgotten and made again without a difference."""
        for limits in (Limits(layouts=1), Limits(layout_fields=1)):
            found = Collected(limits=limits)
            found.feed(message(a_set(2, COUNTER, template(257, (4, 1), (5, 1)))))
            for number in range(0, 6, 2):
                rows = found.rows(message(a_set(257, b"\6\1"), a_set(256, hexed("00000009")), number=number))
                self.assertEqual([{"protocolIdentifier": 6, "ipClassOfService": 1}, {"octetDeltaCount": 9}], rows)
                self.assertEqual(1, len(found.decoder._batches._compiled))

    def test_events(self):
        found = Collected(limits=Limits(events=3))
        found.feed(*(message(a_set(256), domain=d) for d in range(10)))
        self.assertEqual((3, 17), (len(found.decoder.events), found.decoder.intake.events.left_out))

    def test_missing_templates(self):
        """Of many missing templates only some are told."""
        found = Collected(limits=Limits(missing=3))
        found.feed(message(*(a_set(256 + i) for i in range(10))))
        self.assertEqual(["domain"] + ["no_template"] * 3, found.kinds)
        self.assertEqual({"no_template": 10}, found.errors)

    def test_largest(self):
        """RFC 5471 3.5.2: a template of 16370 fields in one Message, and its record."""
        fields = [(4, 1)] * 16370
        told = message(a_set(2, template(256, *fields)))
        self.assertEqual(65504, len(told))
        (batch,) = Collected().batches(told, message(a_set(256, bytes(i % 256 for i in range(16370)))))
        self.assertEqual(1, batch.n)
        self.assertEqual(16370 % 256 - 1, batch.columns["protocolIdentifier#16370"].tolist()[0])

    def test_many_records(self):
        """MSG-2, RFC 5471 3.5.1: Messages of 65535 octets, of records of one octet, fixed and variable."""
        found = Collected()
        told = message(a_set(2, template(256, (4, 1)), template(257, (82, VARIABLE))))
        (batch,) = found.batches(told, message(a_set(256, bytes(65515))))
        self.assertEqual(65515, batch.n)
        (batch,) = found.batches(message(a_set(257, bytes(65515)), number=65515))
        self.assertEqual((65515, 0), (batch.n, len(batch.columns["interfaceName"].data)))
        self.assertEqual(({}, 0), (found.errors, found.lost))
