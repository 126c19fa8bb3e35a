"""Whom options records speak of: rates, names and start times by scope, of exporters as they are known."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_netflow import record5, v5, v9, v9_options
from tests.unit.ipfix.wire import VARIABLE, Collected, a_set, hexed, message, options_template, template, varying
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix import exporter_info, scopes

SAMPLED = frozenset({"sampling_factor", "octetDeltaCount", "dOctets"})
SIZES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def record(*values):
    """A record of (octets, number) or octets."""
    return b"".join(v if isinstance(v, bytes) else v[1].to_bytes(v[0], "big") for v in values)


def tell(ident, scopes, fields, *records):
    """Two Sets: an Options Template of IPFIX, `scopes` and `fields` as (element, octets), and records."""
    return a_set(3, options_template(ident, len(scopes), *scopes, *fields)) + a_set(ident, *records)


def tell9(ident, scopes, fields, *records):
    """The same of NetFlow v9."""
    return a_set(1, v9_options(ident, scopes, fields)) + a_set(ident, *records)


def flows(ident, fields, *records):
    """A Template Set of IPFIX and records."""
    return a_set(2, template(ident, *fields)) + a_set(ident, *records)


def flows9(ident, fields, *records):
    """The same of NetFlow v9."""
    return a_set(0, template(ident, *fields)) + a_set(ident, *records)


def factors(found, *messages):
    """The factors of records that have octets."""
    return [row["sampling_factor"] for row in found.rows(*messages) if {"octetDeltaCount", "dOctets"} & row.keys()]


class RatesTests(SynchronousTestCase):
    """Sampling rates reach the records that they speak of, and no others."""

    def check(self, expected, told, sent, counted=None):
        """Factors of the records in `sent` after `told`; what is counted as not found."""
        found = Collected(SAMPLED)
        found.rows(*told)
        self.assertEqual(expected, factors(found, *sent))
        counts = {name: n for name, n in found.counters.figures.items() if name.startswith("sampling_") and n}
        self.assertEqual(counted or {}, counts)
        self.assertEqual(set(counted or ()), {kind for kind in found.kinds if kind.startswith("sampling_")})

    # of another domain

    def test_ios(self):
        """IOS and IOS-XE by v9: scope System, the sampler's id in the records, flows under another Source ID."""
        fields = [(48, 2), (84, 8), (49, 1), (50, 4)]
        table = tell9(
            256, [(1, 4)], fields, record((4, 0xC0000201), (2, 3), b"SAMP".ljust(8, b"\0"), (1, 2), (4, 1000))
        )
        sent = flows9(260, [(48, 1), (1, 4)], record((1, 3), (4, 9)), record((1, 4), (4, 9)))
        self.check([1000, 1], [v9(table, source=6)], [v9(sent, source=256)], {"sampling_unmatched": 1})

    def test_ios_xe(self):
        """IOS-XE by IPFIX: the sampler is the scope."""
        table = tell(256, [(48, 4)], [(84, 41), (49, 1), (50, 4)], record((4, 1), bytes(41), (1, 2), (4, 1000)))
        sent = flows(260, [(48, 4), (1, 4)], record((4, 1), (4, 9)))
        self.check([1000], [message(table, domain=6)], [message(sent, domain=256)])

    def test_ios_xr(self):
        """IOS-XR: selectors with size and population."""
        table = tell(257, [(302, 8)], [(309, 4), (310, 4), (335, 4)], record((8, 3), (4, 1), (4, 256), b"MAP\0"))
        sent = flows(342, [(302, 1), (1, 4)], record((1, 3), (4, 9)))
        for domain in (33312, 33313):
            self.check([256], [message(table, domain=33312)], [message(sent, domain=domain)])

    def test_junos(self):
        """Inline J-Flow by IPFIX: the Exporting Process is the scope, and flows have domains of their own."""
        fields = [(160, 8), (130, 4), (34, 4), (36, 2), (37, 2)]
        table = tell(512, [(144, 4)], fields, record((4, 2), (8, 1), (4, 1), (4, 1000), (2, 60), (2, 60)))
        sent = flows(256, [(8, 4), (1, 8)], record((4, 1), (8, 9)))
        self.check([1000], [message(table, domain=524288)], [message(sent, domain=524289)])

    def test_srx(self):
        """J-Flow of an SRX by v9, FortiOS, Nokia: scope System without a value, or with one."""
        sent = v9(flows9(256, [(8, 4), (1, 4)], record((4, 1), (4, 9))), source=2)
        for octets in (0, 2, 4):
            table = tell9(257, [(1, octets)], [(34, 4), (35, 1)], record(bytes(octets), (4, 100), (1, 2)))
            self.check([100], [v9(table, source=1)], [sent])

    def test_unsampled_domain(self):
        """A domain of which nothing is told stays as sent beside a sampled one; that is counted."""
        for scope in (143, 149):
            table = tell(300, [(scope, 4)], [(34, 4)], record((4, 1), (4, 100)))
            sampled, other = (message(flows(256, [(1, 4)], record((4, 9))), domain=domain) for domain in (1, 2))
            self.check([100], [message(table, domain=1)], [sampled])
            self.check([1], [message(table, domain=1)], [other], {"sampling_unmatched": 1})

    def test_no_id(self):
        """A sampler of another domain is not that of records that name none."""
        table = tell(300, [(302, 4)], [(34, 4)], record((4, 1), (4, 100)))
        sent = message(flows(256, [(1, 4)], record((4, 9)), record((4, 9))), domain=2)
        self.check([1, 1], [message(table, domain=1)], [sent], {"sampling_unmatched": 2})

    def test_item_by_item(self):
        """An option of its own domain hides no others: sampler 2 is told by domain 0, 3 by another, 1 by all."""

        def table(*samplers):
            return tell(300, [(302, 4)], [(34, 4)], *(record((4, ident), (4, rate)) for ident, rate in samplers))

        told = [message(table((1, 10)), domain=5), message(table((1, 20), (2, 30)), domain=0),
                message(table((1, 40), (2, 50), (3, 60)), domain=7)]  # fmt: skip
        rows = (record((1, ident), (4, 9)) for ident in (1, 2, 3, 4))
        sent = message(flows(256, [(302, 1), (1, 4)], *rows), domain=5)
        self.check([10, 30, 60, 1], told, [sent], {"sampling_unmatched": 1})

    def test_differing(self):
        """Two other domains tell different rates of one id, or of the exporter: neither is used."""
        for scope, fields in ((302, [(302, 4), (1, 4)]), (144, [(8, 4), (1, 4)])):
            told = [message(tell(300, [(scope, 4)], [(34, 4)], record((4, 1), (4, 10 * d))), domain=d) for d in (1, 2)]
            sent = message(flows(256, fields, record((4, 1), (4, 9))), domain=3)
            self.check([1], told, [sent], {"sampling_ambiguous": 1})

    # of a template, an interface and so on

    def test_templates(self):
        """Junos: a rate for each template (scope templateId), also beside the domain; a third has none."""
        for domain in ((), ((149, 4),)):
            rows = [
                record(*((4, 1) for _ in domain), (2, ident), (4, rate)) for ident, rate in ((256, 1024), (257, 100))
            ]
            table = tell(300, [*domain, (145, 2)], [(34, 4)], *rows)
            sent = [
                message(flows(ident, [(ident - 248, 4), (1, 4)], record((4, 1), (4, 9)))) for ident in (256, 257, 258)
            ]
            self.check([1024, 100, 1], [message(table)], sent, {"sampling_unmatched": 1})

    def test_equal_templates(self):
        """Two templates of equal fields in one batch have each its own rate."""
        table = tell(300, [(145, 2)], [(34, 4)], record((2, 256), (4, 10)), record((2, 257), (4, 20)))
        sent = [message(flows(ident, [(8, 4), (1, 4)], record((4, 1), (4, 9)))) for ident in (256, 257, 256)]
        self.check([10, 20, 10], [message(table)], sent)

    def test_template9(self):
        """Scope Template of v9; it is a template of its own source only."""
        table = v9(tell9(300, [(5, 2)], [(34, 4)], record((2, 256), (4, 10))))
        for source, factor in ((1, 10), (2, 1)):
            sent = v9(flows9(256, [(8, 4), (1, 4)], record((4, 1), (4, 9))), source=source)
            self.check([factor], [table], [sent], None if source == 1 else {"sampling_unmatched": 1})

    def test_interfaces(self):
        """Huawei, softflowd: scope Interface of v9, by either direction, the ingress first."""
        rows = (record((2, index), (4, rate), (1, 2)) for index, rate in ((1, 10), (2, 20)))
        table = v9(tell9(300, [(2, 2)], [(34, 4), (35, 1)], *rows))
        rows = (record((4, i), (4, e), (4, 9)) for i, e in ((1, 9), (9, 2), (1, 2), (2, 1), (8, 9)))
        sent = v9(flows9(256, [(10, 4), (14, 4), (1, 4)], *rows))
        self.check([10, 20, 10, 20, 1], [table], [sent], {"sampling_unmatched": 1})

    def test_interface_and_direction(self):
        """A rate for what comes in by an interface, another for what goes out; IPFIX."""
        table = tell(
            300, [(10, 4), (61, 1)], [(34, 4)], record((4, 1), (1, 0), (4, 10)), record((4, 1), (1, 1), (4, 20))
        )
        rows = (record((4, i), (1, d), (4, 9)) for i, d in ((1, 0), (1, 1), (2, 0)))
        sent = message(flows(256, [(10, 4), (61, 1), (1, 4)], *rows))
        self.check([10, 20, 1], [message(table)], [sent], {"sampling_unmatched": 1})

    def test_sides(self):
        """A record with a direction has the rate of the interface where it was seen, and not that of the other one."""
        rows = (record((4, index), (4, rate)) for index, rate in ((5, 100), (7, 200)))
        table = v9(tell9(300, [(2, 4)], [(34, 4)], *rows))
        rows = (record((4, i), (4, e), (1, d), (4, 9)) for i, e, d in ((5, 7, 0), (5, 7, 1), (9, 7, 0), (5, 9, 1)))
        sent = v9(flows9(256, [(10, 4), (14, 4), (61, 1), (1, 4)], *rows))
        self.check([100, 200, 1, 1], [table], [sent], {"sampling_unmatched": 2})
        rows = (record((4, 7), (1, d), (4, 9)) for d in (0, 1))
        self.check([200, 200], [table], [v9(flows9(256, [(14, 4), (61, 1), (1, 4)], *rows))])

    def test_vlans(self):
        """A rate by a VLAN, whose id has two elements."""
        for scope in (58, 243):
            table = message(tell(300, [(scope, 2)], [(34, 4)], record((2, 7), (4, 10))))
            for field in (58, 243):
                rows = (record((2, vlan), (4, 9)) for vlan in (7, 8))
                self.check([10, 1], [table], [message(flows(256, [(field, 2), (1, 4)], *rows))],
                           {"sampling_unmatched": 1})  # fmt: skip

    def test_undirected(self):
        """Rates by interface and direction for records without a direction: that of the interface if both are equal."""
        rows = (record((4, i), (1, d), (4, rate)) for i, d, rate in ((1, 0, 10), (1, 1, 10), (2, 0, 10), (2, 1, 20)))
        table = tell(300, [(10, 4), (61, 1)], [(34, 4)], *rows)
        sent = message(flows(256, [(10, 4), (1, 4)], *(record((4, i), (4, 9)) for i in (1, 2))))
        self.check([10, 1], [message(table)], [sent], {"sampling_ambiguous": 1})

    def test_samplers_of_places(self):
        """Huawei: a sampler for each interface, template or line card, and records that name none."""
        for scope, field in (((2, 4), (10, 4)), ((3, 4), (39, 1)), ((5, 4), None)):
            rows = (record((4, place), (1, 1), (4, rate)) for place, rate in ((256, 100), (7, 200), (2, 300)))
            table = v9(tell9(300, [scope], [(48, 1), (50, 4)], *rows))
            if field is None:
                sent, expected = flows9(256, [(8, 4), (1, 4)], record((4, 9), (4, 9))), [100]
            elif field[1] == 1:
                sent, expected = flows9(256, [field, (1, 4)], *(record((1, i), (4, 9)) for i in (7, 2))), [200, 300]
            else:
                sent, expected = flows9(256, [field, (1, 4)], *(record((4, i), (4, 9)) for i in (7, 256))), [200, 100]
            self.check(expected, [table], [v9(sent)])
        rows = (record((4, 5), (1, sampler), (4, 10 * sampler)) for sampler in (1, 2))
        table = tell9(300, [(2, 4)], [(48, 1), (50, 4)], *rows)
        sent = flows9(256, [(10, 4), (1, 4)], record((4, 5), (4, 9)))
        self.check([1], [v9(table)], [v9(sent)], {"sampling_ambiguous": 1})

    def test_domain_before_exporter(self):
        """What holds for a domain goes before what holds for the whole exporter."""
        told = [message(tell(ident, [(scope, 4)], [(34, 4)], record((4, 1), (4, rate))))
                for ident, scope, rate in ((300, 149, 100), (301, 144, 200))]  # fmt: skip
        for order in (told, told[::-1]):
            self.check([100], order, [message(flows(256, [(1, 4)], record((4, 9))))])

    def test_system_before_the_only_sampler(self):
        """A record that names no sampler has the rate of the system, and only without one that of the only sampler."""
        sampler = tell9(300, [(1, 4)], [(48, 1), (50, 4)], record((4, 1), (1, 1), (4, 10)))
        system = tell9(301, [(1, 4)], [(34, 4)], record((4, 1), (4, 1000)))
        sent = v9(flows9(256, [(1, 4)], record((4, 9))))
        self.check([10], [v9(sampler)], [sent])
        self.check([1000], [v9(sampler), v9(system)], [sent])

    def test_common_properties(self):
        """A rate of common properties, whose id the records have (RFC 5473)."""
        told = tell(300, [(137, 8)], [(34, 4), (10, 4)], record((8, 7), (4, 10), (4, 1)))
        told_alone = tell(301, [(137, 8)], [(34, 4)], record((8, 8), (4, 20)))
        rows = (record((8, ident), (4, 1), (4, 9)) for ident in (7, 8, 9))
        sent = message(flows(256, [(137, 8), (10, 4), (1, 4)], *rows))
        self.check([10, 20, 1], [message(told, told_alone)], [sent], {"sampling_unmatched": 1})

    def test_hashes(self):
        """A selector by the hash of packets: all hashes over the selected ones (RFC 5477 section 8.3)."""
        fields = [(304, 2), (329, 8), (330, 8), (331, 8), (332, 8)]
        for selected, expected in (((0, 655), 100), ((656, 1311), 100), ((0, 65599), 1), ((9, 8), 1), ((0, 65600), 1)):
            row = record((4, 1), (2, 6), (8, 0), (8, 65599), *((8, edge) for edge in selected))
            sent = flows(256, [(302, 4), (1, 4)], record((4, 1), (4, 9)))
            self.check([expected], [message(tell(300, [(302, 4)], fields, row))], [message(sent)])

    def test_taken_back(self):
        """A rate of 0 takes back the one before it: sampling was switched off."""
        for scope, fields, zero in (
            ((149, 4), [(34, 4)], [(4, 0)]),
            ((302, 4), [(305, 4), (306, 4)], [(4, 0), (4, 0)]),
            ((302, 4), [(50, 4)], [(4, 0)]),
            ((143, 4), [(34, 4)], [(4, 0)]),
        ):
            rates = [(4, 1), (4, 9)] if len(fields) == 2 else [(4, 10)]
            on, off = (message(tell(300, [scope], fields, record((4, 1), *values))) for values in (rates, zero))
            sent = message(flows(256, [(302, 4), (143, 4), (1, 4)], record((4, 1), (4, 1), (4, 9))))
            self.check([10], [on], [sent])
            self.check([1], [on, off], [sent])
            self.check([10], [on, off, on], [sent])

    def test_line_cards(self):
        """Line cards: scope Line Card of v9 and engineId; lineCardId of IPFIX. Records without one have no rate."""
        rows = [record((2, card), (4, rate)) for card, rate in ((1, 10), (2, 20))]
        table9, table = v9(tell9(300, [(3, 2)], [(34, 4)], *rows)), message(tell(300, [(141, 2)], [(34, 4)], *rows))
        rows = [record((4, card), (4, 9)) for card in (1, 2, 3)]
        self.check([10, 20, 1], [table9], [v9(flows9(256, [(39, 4), (1, 4)], *rows))], {"sampling_unmatched": 1})
        self.check([10, 20, 1], [table], [message(flows(256, [(141, 4), (1, 4)], *rows))], {"sampling_unmatched": 1})
        self.check([1], [table], [message(flows(256, [(1, 4)], record((4, 9))))], {"sampling_unmatched": 1})

    def test_special_before_general(self):
        """A sampler goes before a template, that before an interface, that before a line card, that before the rest."""
        told = [(300, (143, 2), 1, 2), (301, (141, 2), 1, 3), (302, (10, 2), 1, 4), (303, (145, 2), 256, 5),
                (304, (302, 2), 1, 6)]  # fmt: skip
        for number in range(1, len(told) + 1):
            sets = (
                tell(ident, [scope], [(34, 4)], record((2, value), (4, rate)))
                for ident, scope, value, rate in told[:number]
            )
            row = record((2, 1), (2, 1), (2, 1), (4, 9))
            sent = message(flows(256, [(302, 2), (10, 2), (141, 2), (1, 4)], row))
            self.check([number + 1], [message(*sets)], [sent])

    def test_processes(self):
        """softflowd: its id is that of a process. A new one takes the former one's place; two by turns contradict."""

        def table(process, rate, second):
            return message(tell(256, [(143, 4)], [(305, 4), (306, 4)], record((4, process), (4, 1), (4, rate - 1))),
                           export_time=second)  # fmt: skip

        sent = message(flows(1024, [(1, 4)], record((4, 9))))
        self.check([20], [table(77, 10, 100), table(99, 20, 200)], [sent])
        for told in ([table(77, 10, 100), table(99, 20, 100)], [table(77, 10, 1), table(99, 20, 2), table(77, 10, 3)]):
            self.check([1], told, [sent], {"sampling_ambiguous": 1})
        own = message(flows(1024, [(143, 4), (1, 4)], record((4, 77), (4, 9)), record((4, 99), (4, 9))))
        self.check([10, 20], [table(77, 10, 100), table(99, 20, 100)], [own])

    def test_sequences(self):
        """PSAMP: a Selection Sequence of two selectors, one after the other (RFC 5476 section 6.5.1)."""
        selectors = tell(300, [(302, 2)], [(34, 4)], record((2, 1), (4, 10)), record((2, 2), (4, 5)))
        sequence = tell(301, [(301, 8)], [(138, 8), (302, 2), (302, 2)], record((8, 7), (8, 1), (2, 1), (2, 2)))
        sent = flows(256, [(301, 8), (1, 4)], record((8, 7), (4, 9)), record((8, 8), (4, 9)))
        self.check([50, 1], [message(selectors + sequence)], [message(sent)], {"sampling_unmatched": 1})

    def test_flow_sampling(self):
        """ipt_NETFLOW: one of so many flows is sent (RFC 7014), by interval and spacing."""
        table = tell(
            300, [(149, 4)], [(302, 2), (390, 2), (396, 4), (397, 4)], record((4, 1), (2, 1), (2, 1), (4, 1), (4, 9))
        )
        self.check([10], [message(table)], [message(flows(256, [(302, 2), (1, 4)], record((2, 1), (4, 9))))])

    def test_field_types_as_scopes(self):
        """v9 with a field type in the place of a scope: sampler 48, templateId 145, observationDomainId 149."""
        for scope, value, factor in ((48, 3, 10), (48, 4, 1), (145, 256, 10), (149, 1, 10)):
            table = v9(tell9(300, [(scope, 4)], [(34, 4)], record((4, value), (4, 10))))
            sent = v9(flows9(256, [(48, 1), (1, 4)], record((1, 3), (4, 9))))
            self.check([factor], [table], [sent], None if factor > 1 else {"sampling_unmatched": 1})

    def test_unknown_scope(self):
        """A rate by something that no record is asked for is not that of the domain; counted and told once."""
        found = Collected(SAMPLED)
        table = tell(300, [(95, 4)], [(34, 4)], record((4, 1), (4, 10)), record((4, 2), (4, 10)))
        found.rows(message(table))
        self.assertEqual([1], factors(found, message(flows(256, [(1, 4)], record((4, 9))))))
        self.assertEqual(
            (2, ["odd_options"]), (found.counters.figures["rates_unmatched"], [k for k in found.kinds if "opt" in k])
        )

    def test_netflow5(self):
        """Each header of v5 says whether there is sampling: another engine's rate is not taken."""
        sampled = bytearray(v5(record5(), engine=(0, 0)))
        sampled[22:24] = struct.pack("!H", 1 << 14 | 64)
        self.check([64, 1], [], [bytes(sampled), v5(record5(), engine=(0, 1))])

    def test_own_field(self):
        """Records that say their rate themselves are not counted as unmatched."""
        table = message(tell(300, [(302, 4)], [(34, 4)], record((4, 1), (4, 100))), domain=2)
        sent = message(flows(256, [(34, 4), (1, 4)], record((4, 7), (4, 9)), record((4, 0), (4, 9))), domain=1)
        self.check([7, 1], [table], [sent], {"sampling_unmatched": 1})

    def test_own_fields(self):
        """Whatever fields of its own a record says its rate by, of several the first with a value."""
        for fields, values, expected in (
            ([307, 308], (1, 9), 10),
            ([305], (100,), 100),
            ([34, 50], (0, 20), 20),
            ([305, 306, 34], (0, 0, 30), 30),
            ([305, 306, 34], (1, 39, 30), 40),
            ([396, 397], (2, 8), 5),
            ([309, 310], (0, 9), 1),
        ):
            row = record(*((4, value) for value in values), (4, 9))
            sent = flows(256, [*((field, 4) for field in fields), (1, 4)], row)
            self.check([expected], [], [message(sent)])

    def test_restored(self):
        """What is known survives a restart, as JSON has it; also the form of the version before."""
        found = Collected(SAMPLED)
        found.rows(message(tell(300, [(145, 2)], [(34, 4)], record((2, 256), (4, 10))),
                           tell(301, [(95, 4)], [(96, 3)], record((4, 1), b"dns")),
                           tell(302, [(149, 4)], [(160, 8)], record((4, 1), (8, 77)))))  # fmt: skip
        info = found.session.domains[1].info
        again = exporter_info.restored(exporter_info.plain(info))
        self.assertEqual(
            (info.rates, info.names, info.times, len(info)), (again.rates, again.names, again.times, len(again))
        )
        again = exporter_info.restored(exporter_info.plain(exporter_info.ExporterInfo()))
        self.assertEqual(({}, {}), (again.rates, again.names))
        former = {"samplers": [[None, 5.0], [2, 7.0]], "interfaces": [[3, "eth0"]], "flow_keys": [], "statistics": [],
                  "applications": [["0d000001", "dns"]]}  # fmt: skip
        info = exporter_info.restored(former)
        self.assertEqual({(): 5.0, (("sampler", 2),): 7.0}, info.rates)
        self.assertEqual({"interface": {3: b"eth0"}, "application": {b"\x0d\0\0\x01": b"dns"}}, info.names)

    def test_read_when_told(self):
        """Columns are read for a rate only when there is one by them, from the next batch of the same template on."""
        found = Collected(SAMPLED)
        sent = message(flows(256, [(10, 4), (1, 4)], record((4, 1), (4, 9))))
        self.assertEqual([1], factors(found, sent))
        (layout,) = (known.layout for known in found.session.domains[1].templates.values())
        compiled = layout.columns
        self.assertEqual([1], factors(found, sent))
        self.assertIs(compiled, layout.columns)
        self.assertEqual(["octetDeltaCount"], [key.name for key in compiled.keys])
        told = message(tell(300, [(10, 4)], [(34, 4)], record((4, 1), (4, 100))))
        found.rows(told)
        self.assertEqual([100], factors(found, sent))
        compiled = layout.columns
        found.rows(told)
        self.assertEqual([100], factors(found, sent))
        self.assertIs(compiled, layout.columns)

    def test_columns(self):
        """Every identity but those of templates and the exporter has columns, each of a key that there is."""
        self.assertEqual({"template", "cache", "exporter"}, set(scopes.ORDER) - set(scopes.COLUMNS))


class NamesTests(SynchronousTestCase):
    """Names of things, from any domain of the exporter."""

    def check(self, expected, told, sent, counted=None, v9=False):
        """Rows with their names, where all keys are wanted; what is counted as not found."""
        found = Collected(ALL, name=True)
        found.rows(*told)
        rows = [{k: v for k, v in row.items() if isinstance(v, bytes) and "Id" not in k} for row in found.rows(*sent)]
        self.assertEqual(expected, rows)
        counts = {name: n for name, n in found.counters.figures.items() if name.startswith("names_") and n}
        self.assertEqual(counted or {}, counts)

    def test_cisco(self):
        """IOS-XE by v9: interfaces, applications, samplers, VRFs of Source ID 6 are those of the flows of 256."""
        system = (4, 0xC0000201)
        told = [
            tell9(257, [(1, 4)], [(10, 4), (82, 4), (83, 8)], record(system, (4, 1), b"Gi1\0", b"uplink\0\0")),
            tell9(258, [(1, 4)], [(95, 4), (96, 4), (94, 6)], record(system, hexed("0d0001c5"), b"ssl\0", b"Secure")),
            tell9(259, [(1, 4)], [(48, 4), (84, 4)], record(system, (4, 1), b"SAMP")),
            tell9(260, [(1, 4)], [(234, 4), (236, 4)], record(system, (4, 5), b"red\0")),
        ]
        fields = [(10, 4), (14, 4), (48, 1), (95, 4), (234, 4), (235, 4), (1, 4)]
        row = record((4, 1), (4, 2), (1, 1), hexed("0d0001c5"), (4, 5), (4, 6), (4, 9))
        names = {"ingressInterfaceName": b"Gi1", "ingressInterfaceDescription": b"uplink", "applicationName": b"ssl",
                 "applicationDescription": b"Secure", "samplerName": b"SAMP", "ingressVRFName": b"red"}  # fmt: skip
        told = [v9(*told, source=6)]
        self.check([names], told, [v9(flows9(300, fields, row), source=256)], {"names_unmatched": 3})

    def test_arista(self):
        """IPFIX: the interface, VRF or selector is the scope; names of variable length."""
        told = [
            tell(257, [(10, 4)], [(82, VARIABLE)], record((4, 1)) + varying(b"Et1")),
            tell(258, [(234, 4)], [(236, VARIABLE)], record((4, 5)) + varying(b"red")),
            tell(259, [(302, 8)], [(335, VARIABLE)], record((8, 7)) + varying(b"sampled")),
            tell(260, [(283, 4)], [(284, VARIABLE)], record((4, 8)) + varying(b"pool")),
        ]
        fields = [(10, 4), (14, 4), (234, 4), (235, 4), (302, 8), (283, 4)]
        row = record((4, 1), (4, 1), (4, 5), (4, 5), (8, 7), (4, 8))
        names = {"ingressInterfaceName": b"Et1", "egressInterfaceName": b"Et1", "ingressVRFName": b"red",
                 "egressVRFName": b"red", "selectorName": b"sampled", "natPoolName": b"pool"}  # fmt: skip
        self.check([names], [message(*told)], [message(flows(300, fields, row))])

    def test_on_request(self):
        """VRFname is that of the ingress, or else of the egress, for who asks for it."""
        found = Collected(frozenset({"VRFname"}))
        found.rows(message(tell(258, [(234, 4)], [(236, 4)], record((4, 5), b"red\0"), record((4, 6), b"blue"))))
        sent = [flows(300, [(234, 4), (235, 4)], record((4, 5), (4, 6))), flows(301, [(235, 4)], record((4, 6)))]
        self.assertEqual([{"VRFname": b"red"}, {"VRFname": b"blue"}], found.rows(message(*sent)))

    def test_padded(self):
        """A name ends at its first NUL, whatever is behind it; an empty one is none, hides none, and takes one back."""

        def tell_(name, description, **more):
            return message(tell(257, [(10, 4)], [(82, 8), (83, 8)], record((4, 1), name, description)), **more)

        sent = [message(flows(300, [(10, 4), (1, 4)], record((4, 1), (4, 9))), domain=5)]
        empty = bytes(8)
        named, described = {"ingressInterfaceName": b"eth0"}, {"ingressInterfaceDescription": b"uplink"}
        garbage = tell_(b"eth0\0\xff\xfe ", b"uplink\0\1", domain=5)
        self.check([named | described], [garbage], sent)
        self.check([{"ingressInterfaceName": b"uplink"} | described], [tell_(empty, b"uplink\0\0", domain=5)], sent)
        self.check([{"ingressInterfaceName": b"uplink"} | described],
                   [tell_(b"        ", b"uplink  ", domain=5)], sent)  # fmt: skip
        zero = tell_(b"eth0\0\0\0\0", empty, domain=0)
        self.check([named], [zero, tell_(empty, empty, domain=5)], sent)
        self.check([{}], [garbage, tell_(empty, empty, domain=5)], sent)

    def test_domain(self):
        """The name of a domain, that of the records (observationDomainName)."""
        told = tell(257, [(149, 4)], [(300, 4)], record((4, 2), b"east"), record((4, 3), b"west"))
        sent = [message(flows(300, [(1, 4)], record((4, 9))), domain=domain) for domain in (2, 3)]
        expected = [{"observationDomainName": b"east"}, {"observationDomainName": b"west"}]
        self.check(expected, [message(told, domain=0)], sent)

    def test_item_by_item(self):
        """Own domain, domain 0, another domain; what two others tell differently is no name, and counted."""

        def table(*interfaces):
            return tell(257, [(10, 4)], [(82, 2)], *(record((4, index), name) for index, name in interfaces))

        told = [
            message(table((1, b"a1")), domain=1),
            message(table((1, b"z1"), (2, b"z2")), domain=0),
            message(table((2, b"o2"), (3, b"o3"), (4, b"o4")), domain=7),
            message(table((4, b"p4")), domain=8),
        ]
        rows = (record((4, index)) for index in (1, 2, 3, 4, 5, 0))
        expected = [{"ingressInterfaceName": name} if name else {} for name in (b"a1", b"z2", b"o3", None, None, None)]
        counted = {"names_ambiguous": 1, "names_unmatched": 1}
        self.check(expected, told, [message(flows(300, [(10, 4)], *rows), domain=1)], counted)

    def test_netflow5(self):
        """Interfaces of v5 have the names that the exporter tells by v9."""
        told = v9(tell9(257, [(1, 4)], [(10, 2), (82, 4)], record((4, 1), (2, 3), b"eth0")))
        self.check([{"ingressInterfaceName": b"eth0"}], [told], [v5(record5())], {"names_unmatched": 1})

    def test_physical(self):
        """Records with physical interfaces only."""
        told = message(tell(257, [(252, 4)], [(82, 4)], record((4, 3), b"ge-0")))
        sent = message(flows(300, [(252, 4), (253, 4)], record((4, 3), (4, 3))))
        self.check([{"ingressInterfaceName": b"ge-0", "egressInterfaceName": b"ge-0"}], [told], [sent])
