"""Templates and Options Templates as a Collecting Process has to take them (RFC 7011 sections 3.4, 8)."""

from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import (
    COUNTER,
    VARIABLE,
    Collected,
    a_set,
    counts,
    counts_of,
    hexed,
    ipv4,
    ipv6,
    message,
    options_template,
    template,
    varying,
    without_context,
)


class TemplateTests(SynchronousTestCase):
    """Data templates."""

    def test_ids(self):
        """TPL-1: every id from 256 to 65535 can be a template, for data and options; none below."""
        for ident in (256, 257, 32767, 32768, 65535):
            for told in (a_set(2, template(ident, (1, 4))), a_set(3, options_template(ident, 1, (1, 4)))):
                rows = Collected().rows(message(told, a_set(ident, hexed("00000007"))))
                self.assertEqual([{"octetDeltaCount": 7}], rows)
        for ident in (4, 100, 255):
            for told in (a_set(2, template(ident, (1, 4))), a_set(3, options_template(ident, 1, (1, 4)))):
                found = Collected()
                self.assertEqual([], found.rows(message(told)))
                self.assertEqual({"template": 1}, found.errors)

    def test_order_of_ids(self):
        """TPL-2: ids may come in any order and say nothing; templates of equal fields under several ids are equal."""
        elements = {65535: 1, 256: 2, 300: 85}
        for order in permutations(elements):
            told = message(a_set(2, *(template(ident, (elements[ident], 4)) for ident in order)))
            data = message(*(a_set(ident, hexed("00000007")) for ident in sorted(elements)))
            rows = Collected().rows(told, data)
            self.assertEqual(
                {("octetDeltaCount", 7), ("packetDeltaCount", 7), ("octetTotalCount", 7)},
                {item for row in rows for item in row.items()},
            )

    def test_specifiers(self):
        """TPL-3: an enterprise number stands exactly where the first bit is set, whatever the element and length."""
        told = hexed(
            "0002" "0030" "0100" "0006"
            "8007" "0003" "0000fde8"  # enterprise 65000, element 7, three octets
            "0007" "0002"  # IANA's element 7
            "ffff" "ffff" "ffffffff"  # the largest of all, of variable length
            "8001" "0004" "00007279"  # 29305: the reverse of octetDeltaCount
            "8001" "0004" "00000000"  # the bit with IANA's own number
            "0004" "0001"
        )  # fmt: skip
        data = a_set(256, hexed("010203003502abcd000000080000000906"))
        expected = {
            "e65000id7": b"\1\2\3", "sourceTransportPort": 53, "e4294967295id32767": b"\xab\xcd",
            "reverseOctetDeltaCount": 8, "octetDeltaCount": 9, "protocolIdentifier": 6,
        }  # fmt: skip
        found = Collected()
        self.assertEqual([expected], found.rows(message(told, data)))
        self.assertEqual({}, found.errors)

    def test_apart_from_data(self):
        """TPL-7: template and data come in one message or in several, the template long before or just now."""
        told, data = a_set(2, COUNTER), a_set(256, hexed("00000001"))
        others = [message(a_set(2, template(ident, (4, 1)))) for ident in range(300, 400)]
        apart = [message(told), message(data)]
        for messages in ([message(told, data)], apart, [apart[0], *others, apart[1]]):
            self.assertEqual([1], counts_of(Collected().rows(*messages)))

    def test_unknown_elements(self):
        """TPL-10: an element that nobody knows keeps its number and octets, and spoils nothing of its record."""
        told = template(256, (8, 4), (40, 3, 12345), (32000, 2), (9, VARIABLE, 12345), (1, 4))
        record = hexed("c0000201010203abcd") + varying(b"what") + hexed("00000005")
        expected = {
            "sourceIPv4Address": ipv4("192.0.2.1"), "e12345id40": b"\1\2\3", "e0id32000": b"\xab\xcd",
            "e12345id9": b"what", "octetDeltaCount": 5,
        }  # fmt: skip
        self.assertEqual([expected] * 2, Collected().rows(message(a_set(2, told), a_set(256, record, record))))
        # Whoever does not ask for it gets the record all the same.
        batches = Collected(frozenset({"octetDeltaCount"})).batches(message(a_set(2, told), a_set(256, record)))
        self.assertEqual([{"octetDeltaCount": 5}], [row for batch in batches for row in batch.rows()])

    def test_withdrawn_and_reused(self):
        """WD-1, WD-3: a template is withdrawn by its id alone, several in one set, with padding; the ids are free."""
        withdrawals = hexed("00020010010000000101000000000000")
        found = Collected().feed(message(a_set(2, COUNTER, template(257, (4, 1)), template(258, (5, 1)))))
        rows = found.rows(
            message(withdrawals, a_set(256, bytes(4)), a_set(257, b"\6"), a_set(258, b"\7")),
            message(a_set(2, template(257, (60, 1))), a_set(257, b"\4"), number=3),
        )
        self.assertEqual([{"ipClassOfService": 7}, {"ipVersion": 4}], rows)
        self.assertEqual({"no_template": 2}, found.errors)
        # Without the count of scope fields, which an options template has.
        found = Collected().feed(message(a_set(3, options_template(256, 1, (1, 4)))))
        self.assertEqual([], found.rows(message(hexed("0003000801000000")), counts(1)))
        self.assertEqual({"no_template": 1}, found.errors)


class OptionsTests(SynchronousTestCase):
    """Options Templates: their scopes and what they mean."""

    def test_scope_count(self):
        """OPT-1: the first fields are scope, as many as are said; none, or more than there are, costs the template."""
        fields = (149, 4), (143, 4), (41, 4)
        record = hexed("000000010000000200000003")
        names = ["observationDomainId#2", "meteringProcessId", "exportedMessageTotalCount"]
        for scopes in (1, 2, 3):
            told = a_set(3, options_template(256, scopes, *fields))
            (batch,) = Collected().batches(message(told, a_set(256, record)))
            self.assertEqual([dict(zip(names, (1, 2, 3), strict=True))], [without_context(r) for r in batch.rows()])
            self.assertEqual([b"options"], batch.columns["record_kind"].to_list())
        for scopes in (0, 4, 65535):
            found = Collected()
            rows = found.rows(
                message(a_set(3, options_template(256, scopes, *fields)), a_set(256, record)),
                message(a_set(2, COUNTER)),
                counts(1),
            )
            self.assertEqual(([1], {"template": 1, "no_template": 1}), (counts_of(rows), found.errors))

    def test_order_of_scopes(self):
        """OPT-2: scopes stay in their order; any element may be one, of an enterprise or of variable length too."""
        told = options_template(256, 4, (10, 4), (7, 2, 12345), (10, 4), (82, VARIABLE), (34, 4))
        record = hexed("00000001abcd00000002") + varying(b"eth0") + hexed("00000064")
        (batch,) = Collected().batches(message(a_set(3, told), a_set(256, record)))
        (row,) = batch.rows()
        self.assertEqual(
            [("ingressInterface", 1), ("e12345id7", b"\xab\xcd"), ("ingressInterface#2", 2), ("interfaceName", b"eth0"),
             ("samplingInterval", 100)], list(without_context(row).items())
        )  # fmt: skip

    def test_scopes(self):
        """OPT-3: the scopes of RFC 7011 section 3.4.2.1 are known, each with its name and type."""
        for element, octets, name, value in (
            (149, "00000007", "observationDomainId#2", 7),
            (144, "00000007", "exportingProcessId", 7),
            (143, "00000007", "meteringProcessId", 7),
            (145, "0101", "templateId#2", 257),
            (141, "00000007", "lineCardId", 7),
            (130, "c0000201", "exporterIPv4Address", ipv4("192.0.2.1")),
            (131, "20010db8000000000000000000000001", "exporterIPv6Address", ipv6("2001:db8::1")),
            (10, "00000007", "ingressInterface", 7),
        ):
            told = options_template(300, 1, (element, len(octets) // 2), (41, 8))
            rows = Collected().rows(message(a_set(3, told), a_set(300, hexed(octets), hexed("0000000000000009"))))
            self.assertEqual([{name: value, "exportedMessageTotalCount": 9}], rows)

    def test_by_elements(self):
        """OPT-8: records of the same elements are the same, whatever the template's id, and others are not."""
        told = [options_template(ident, 1, (141, 4), (41, 2)) for ident in (256, 999)]
        told.append(options_template(257, 1, (141, 4), (42, 2)))
        data = [a_set(ident, hexed("000000010007")) for ident in (256, 999, 257)]
        batches = Collected().batches(message(a_set(3, *told), *data))
        self.assertEqual(
            [
                [{"lineCardId": 1, "exportedMessageTotalCount": 7}] * 2,
                [{"lineCardId": 1, "exportedFlowRecordTotalCount": 7}],
            ],
            [[without_context(row) for row in batch.rows()] for batch in batches],
        )
