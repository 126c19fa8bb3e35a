"""Biflows (RFC 5103) that go out as uniflows, NetFlow v9 or v5: two records, and every octet is in one of them."""

import numpy as np

from tests.unit.exporting import test_netflow
from tests.unit.exporting.doubles import Reader
from tests.unit.plugins.outputs.test_ipfix import RecordsCase

CLIENT, SERVER = 0x0A000001, 0xC0000202
ROWS = {
    "sourceIPv4Address": CLIENT, "destinationIPv4Address": SERVER, "sourceTransportPort": [5001, 5002, 5003],
    "destinationTransportPort": 443, "protocolIdentifier": 6, "octetDeltaCount": [100, 200, 300],
    "packetDeltaCount": [1, 2, 3], "reverseOctetDeltaCount": [1000, 0, 3000], "reversePacketDeltaCount": [10, 0, 30],
    "ingressInterface": 7, "tcpControlBits": 2, "reverseTcpControlBits": 18,
    "flowStartMilliseconds": 1700000000250, "flowEndMilliseconds": 1700000005999,
    "reverseFlowStartMilliseconds": 1700000000300, "biflowDirection": 1,
}  # fmt: skip
"""Three flows, the second of which was never answered."""
FORTH = [(CLIENT, SERVER, port, 443, 100 * n, n) for n, port in ((1, 5001), (2, 5002), (3, 5003))]
BACK = [(SERVER, CLIENT, 443, port, 1000 * n, 10 * n) for n, port in ((1, 5001), (3, 5003))]


class BiflowCase(test_netflow.NetFlowCase):
    """Biflows of another exporter."""

    def biflows(self, **changes):
        return RecordsCase.collected(self, 3, **(ROWS | changes))

    def ends(self, records, names):
        return sorted(tuple(record[name] for name in names) for record in records)


class UniflowTests(BiflowCase):
    """fields=uniflow."""

    NAMES = (8, 12, 7, 11, 1, 2)

    def records(self, batch):
        plugin = self.exporter(batch, collectors=("udp:192.0.2.1",), fields="uniflow")
        plugin.write(batch)
        self.tick(plugin)
        reader = Reader()
        for message in self.sockets[-1].sent:
            reader.message(message)
        self.end()
        return [record for _, record in reader.records]

    def test_two_records(self):
        """BI-4: ends, octets and packets of both directions; the answer has its own start, and the flow's end."""
        found = self.records(self.biflows())
        self.assertEqual(sorted(FORTH + BACK), self.ends(found, self.NAMES))
        times = {(record[8], record[152], record[153]) for record in found}
        self.assertEqual({(CLIENT, 1700000000250, 1700000005999), (SERVER, 1700000000300, 1700000005999)}, times)

    def test_totals(self):
        """Total counters stay totals."""
        totals = dict.fromkeys(("octetDeltaCount", "packetDeltaCount", "reverseOctetDeltaCount",
                                "reversePacketDeltaCount"))  # fmt: skip
        rows = {name: value for name, value in ROWS.items() if name not in totals}
        batch = RecordsCase.collected(
            self, 3, **rows, octetTotalCount=100, packetTotalCount=1, reverseOctetTotalCount=900,
            reversePacketTotalCount=[9, 9, 0],
        )  # fmt: skip
        found = self.records(batch)
        self.assertEqual([(CLIENT, 100, 1)] * 3 + [(SERVER, 900, 0)] + [(SERVER, 900, 9)] * 2,
                         self.ends(found, (8, 85, 86)))  # fmt: skip

    def test_unknown_answer(self):
        """Where nobody counted the answer, there is none; where somebody counted octets only, there is."""
        batch = self.biflows()
        gone = np.array([True, False, False])
        batch = batch.with_columns({}, {"reversePacketDeltaCount": np.ones(3, bool), "reverseOctetDeltaCount": gone})
        found = [record for record in self.records(batch) if record[8] == SERVER]
        self.assertEqual([(3000, None)], [(record[1], record.get(2)) for record in found])

    def test_any_size(self):
        """No octet is lost or made, whatever is answered."""
        for answered in (0, 1, 2, 3):
            octets = np.array([5, 6, 7]) * (np.arange(3) < answered)
            found = self.records(self.biflows(reverseOctetDeltaCount=octets, reversePacketDeltaCount=octets))
            self.assertEqual(600 + int(octets.sum()), sum(record[1] for record in found), answered)


class Version9Tests(BiflowCase):
    """NetFlow v9, which has no reverse elements."""

    read = test_netflow.Version9Tests.read

    def test_all_keys(self):
        """Also where all keys go out: what is of one direction only is left out of the answer."""
        found = [record for _, record in self.read(self.sent(self.biflows(), version="9"))]
        self.assertEqual(sorted(FORTH + BACK), self.ends(found, (8, 12, 7, 11, 1, 2)))
        flags = {(record[8], record.get(6), record.get(10)) for record in found}
        self.assertEqual({(CLIENT, 2, 7), (SERVER, 18, None)}, flags)
        self.assertEqual({(CLIENT, 1700000000250), (SERVER, 1700000000300)},
                         {(record[8], record[22]) for record in found})  # fmt: skip

    def test_uniflow(self):
        """fields=uniflow."""
        found = [record for _, record in self.read(self.sent(self.biflows(), version="9", fields="uniflow"))]
        self.assertEqual(sorted(FORTH + BACK), self.ends(found, (8, 12, 7, 11, 1, 2)))


class Version5Tests(BiflowCase):
    """NetFlow v5."""

    NAMES = test_netflow.Version5Tests.NAMES
    read = test_netflow.Version5Tests.read

    def test_two_records(self):
        """Ends, octets and packets; interface and flags of the first direction are not the answer's."""
        found = self.read(self.sent(self.biflows(), version="5"))
        names = ("srcaddr", "dstaddr", "srcport", "dstport", "octets", "packets")
        self.assertEqual(sorted(FORTH + BACK), self.ends(found, names))
        self.assertEqual({(CLIENT, 7, 2), (SERVER, 0, 0)},
                         {(record["srcaddr"], record["input"], record["flags"]) for record in found})  # fmt: skip
