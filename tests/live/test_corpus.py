"""Real captures through the running service: COLLECTOR -> JSON gives what the reference decode has, value by value."""

import json
import socket
import struct
from collections import Counter

from twisted.trial.unittest import TestCase

from tests.live.service import Service, unaccounted
from tests.support import free_port, shared_path
from tests.unit.ipfix.test_netflow import reference
from tests.unit.ipfix.wire import TIMES, as_people_write, without_our_times
from ulogd_tw.ipfix.packet_sections import MADE, SECTIONS

CONTEXT = {
    "exporter",
    "exporter_port",
    "observationDomainId",
    "templateId",
    "record_kind",
    "received_ms",
    "export_time",
}


def plain(fields):
    """Fields as a collector of this version shows them: no padding, clashing names full."""
    found = {}
    for name, value in fields.items():
        bare = name.split("#")[0]
        if bare == "paddingOctets":
            continue
        found[{"httpContentType": "e5951.httpContentType"}.get(name, name)] = as_people_write(name, value)
    return found


def occurrences(fields):
    """Fields of a template with several layers: which occurrence has the plain name is ours to choose."""
    return sorted((name.partition("#")[0], value) for name, value in fields.items() if not name.startswith("tunnel."))


class CorpusTests(TestCase):
    """Every IPFIX case, sent as it was captured."""

    timeout = 120

    def cases(self, *protocols):
        """(name, messages, oracle) of every case of these protocols."""
        folder = shared_path("corpus", "ipfix")
        for path in sorted(folder.glob("oracle/*.json")):
            oracle = json.loads(path.read_text())
            if oracle["protocol"] in protocols:
                lines = (folder / "messages" / f"{path.stem}.jsonl").read_text().splitlines()
                yield path.stem, [json.loads(line) for line in lines], oracle

    def test_over_udp_and_tcp(self):
        """Each case by its own exporter; cases of files go over TCP. Malformed messages are dropped, the rest stays."""
        cases = list(self.cases("ipfix"))
        self.assertGreater(len(cases), 30)
        rows = self.replay(cases)
        for name, _, oracle in cases:
            self.check(name, rows.get(name, []), oracle["records"])

    def test_netflow(self):
        """Each case of v9 and v5 over UDP; absolute times are ours, and so are the names of field types of v9 alone."""
        cases = list(self.cases("netflow9", "netflow5", "netflow5+netflow9", ""))
        self.assertEqual(len(cases), 65)
        rows = self.replay(cases)
        for name, messages, oracle in cases:
            packets = [bytes.fromhex(message["hex"]) for message in messages]
            expected, got = Counter(), Counter()
            for _, (*place, fields) in reference(oracle, packets):
                expected[(*place, tuple(sorted(fields)))] += 1
            for row in rows.get(name, []):
                fields = tuple(sorted((k, v) for k, v in row.items() if k not in CONTEXT))
                got[row["observationDomainId"], row["templateId"], row["record_kind"], fields] += 1
            self.assertEqual(without_our_times(got, expected), expected, name)

    def test_sflow(self):
        """Every sample of every datagram: its number, source, rate and interfaces, as the outlines have them."""
        cases = list(self.cases("sflow5"))
        self.assertEqual(len(cases), 16)
        of_netflow5 = {"tcpdump-sflow-multiple-counter-30-pdus": 7}  # records of v5 in packets between the datagrams
        for name, _, oracle in cases:
            known = sum(len(datagram["samples"]) for datagram in oracle["datagrams"])
            oracle["record_count"] = known + of_netflow5.get(name, 0)
        rows = self.replay(cases)
        for name, _, oracle in cases:
            names = ("sequence", "source_type", "source_index", "sampling_rate", "sample_pool", "drops")
            expected = Counter(
                (d["agent"], d["sub_agent"], s["format"], *(s.get(n) for n in names))
                for d in oracle["datagrams"] for s in d["samples"] if s["format"] != 5
            )  # fmt: skip
            keys = ("sampleSequence", "sampleSourceType", "sampleSourceIndex", "samplingInterval", "samplePool",
                    "sampleDrops")  # fmt: skip
            got = Counter(
                (row["exporterIPv4Address"], row["observationDomainId"], row["templateId"], *(row.get(k) for k in keys))
                for row in rows[name] if "sampleSequence" in row and row["templateId"] != 5
            )  # fmt: skip
            self.assertEqual(got, expected, name)

    def setUp(self):
        self.local_ports = set()

    def replay(self, cases):
        """Send all cases to a service; its rows by case."""
        port = free_port("both")
        config = f'[col1]\nlisten="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"\nmax_malformed=1000\npark=0\n'
        config += '[json1]\nfile="{dir}/flows.json"\n'
        ports, expected = {}, 0
        with Service(["col1:COLLECTOR,json1:JSON"], config) as service:
            for name, messages, oracle in cases:
                expected += oracle["record_count"]
                ports.update(self.send(port, name, messages))
                service.wait_for("json1", "rows_written", expected)
        self.assertEqual(unaccounted(service.all_counters()), {})
        lines = [json.loads(line) for line in (service.directory / "flows.json").read_text().splitlines()]
        self.assertEqual(len(lines), expected)
        rows = {}
        for row in lines:
            rows.setdefault(ports[row["exporter_port"]], []).append(row)
        return rows

    def send(self, port, name, messages):
        """Send a case; its local ports, so that its records are known again. One socket for each exporter."""
        kind = socket.SOCK_DGRAM if messages[0]["transport"] == "udp" else socket.SOCK_STREAM
        sockets = {}
        for message in messages:
            source = (message["src"], message["sport"])
            if source not in sockets:
                sockets[source] = self.connected(kind, port)
            octets = bytes.fromhex(message["hex"])
            if kind == socket.SOCK_STREAM and struct.unpack_from("!H", octets, 2)[0] != len(octets):
                continue  # over TCP a wrong length is a broken stream, which test_collector has
            sockets[source].send(octets)
        ports = {s.getsockname()[1]: name for s in sockets.values()}
        if kind == socket.SOCK_STREAM:
            for s in sockets.values():
                s.shutdown(socket.SHUT_WR)
        return ports

    def connected(self, kind, port):
        """A socket with a local port of its own: UDP and TCP give the same one twice now and then."""
        while True:
            made = socket.socket(socket.AF_INET, kind)
            self.addCleanup(made.close)
            made.connect(("127.0.0.1", port))
            local = made.getsockname()[1]
            if local not in self.local_ports:
                self.local_ports.add(local)
                return made

    def check(self, name, rows, records):
        got = Counter()
        layered = {record["tid"] for record in records if "protocolIdentifier#2" in record["fields"]}
        own = {(record["tid"], name) for record in records for name in TIMES if name in record["fields"]}
        for row in rows:
            ours = {name for name in TIMES if (row["templateId"], name) not in own}
            if SECTIONS.keys() & row.keys():  # what the packets inside say, which the reference leaves out
                ours |= MADE
            fields = {k: v for k, v in row.items() if k not in CONTEXT and k not in ours}
            if row["templateId"] in layered:
                fields = occurrences(fields)
            got[row["templateId"], row["record_kind"], json.dumps(fields, sort_keys=True)] += 1
        expected = Counter()
        for record in records:
            fields = plain(record["fields"])
            for context in ("observationDomainId", "templateId"):
                if context in fields:  # the bare name is the message's
                    fields[f"{context}#2"] = fields.pop(context)
            if record["tid"] in layered:
                fields = occurrences(fields)
            expected[record["tid"], record["kind"], json.dumps(fields, sort_keys=True)] += 1
        self.assertEqual(got, expected, name)
