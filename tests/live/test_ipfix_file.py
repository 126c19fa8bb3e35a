"""IPFIXFILE in the running service: its files read by tshark, libfixbuf and nfdump; kills, full disks, signals."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.service import Service, generate, temporary, unaccounted
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, free_port, require_program, require_root, wait_until

STACKS = ["col1:COLLECTOR,file1:IPFIXFILE", "col1:COLLECTOR,json1:JSON"]
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[file1]
file="{dir}/store/%Y/flows-%Y%m%d-%H%M%S.ipfix"
rotate_interval={interval}
[json1]
file="{dir}/flows.json"
"""


def run(*argv):
    """The standard output of a program that has to succeed."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{argv}: {done.stderr[-2000:]}")
    return done.stdout


def sums_of_fixbuf(files):
    """(records, octets, packets) of data records, and how many of each exporter, as ipfixDump prints them."""
    (program,) = require_program("ipfixDump")
    found, exporters = [0, 0, 0], Counter()
    for file in files:
        text = run(program, "--in", file)
        found[0] += len(re.findall(r"^--- data record", text, re.M))
        for place, name in ((1, "octetDeltaCount"), (2, "packetDeltaCount")):
            found[place] += sum(map(int, re.findall(rf"\(\d+\) +{name} : (\d+)", text)))
        exporters.update(re.findall(r"exporterIPv[46]Address : (\S+)", text))
    return tuple(found), exporters


def sums_of_tshark(files):
    """(records, octets, packets), and what tshark finds wrong."""
    (program,) = require_program("tshark")
    records = octets = packets = 0
    wrong = ""
    for file in files:
        names = [word for name in ("protocol", "octets", "packets") for word in ("-e", f"cflow.{name}")]
        for line in run(program, "-r", file, "-T", "fields", *names).splitlines():
            protocols, found, counts = ([int(v) for v in field.split(",") if v] for field in line.split("\t"))
            records, octets, packets = records + len(protocols), octets + sum(found), packets + sum(counts)
        wrong += run(program, "-r", file, "-Y", "_ws.malformed || _ws.expert.severity >= 6291456")
    return (records, octets, packets), wrong


def messages(file):
    """The messages of a file."""
    octets, at = file.read_bytes(), 0
    while at < len(octets):
        (length,) = struct.unpack_from("!H", octets, at + 2)
        yield octets[at : at + length]
        at += length


def read_by_nfdump(case, files):
    """{protocol: (flows, packets, octets)} of nfdump, after each message went to nfcapd in one datagram."""
    nfcapd, nfdump = require_program("nfcapd", "nfdump")
    folder, port = temporary("nfcapd"), free_port("udp")
    log = folder / "log"
    store = folder / "store"
    store.mkdir()
    argv = [nfcapd, "-w", store, "-p", port, "-b", "127.0.0.1", "-t", 3600, "-B", 1 << 24]
    with Daemon(argv, lambda daemon: "Startup nfcapd" in log.read_text(), log=log):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for file in files:
                for octets in messages(file):
                    out.sendto(octets, ("127.0.0.1", port))
                    wait_until(lambda: not _queued(port), what="nfcapd reads")
    text = log.read_text()
    # each file begins at 0, which looks like an exporter that has restarted
    case.assertIn(f"Sequence Errors: {len(files) - 1}, Bad Packets: 0", text)
    found = {}
    for line in run(nfdump, "-R", store, "-q", "-N", "-6", "-o", "fmt:%pr;%pkt;%byt").splitlines():
        protocol, packets, octets = map(int, line.split(";"))
        old = found.get(protocol, (0, 0, 0))
        found[protocol] = (old[0] + 1, old[1] + packets, old[2] + octets)
    return found


def _queued(port):
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[4].split(":")[1], 16) for line in lines if line.split()[1].endswith(f":{port:04X}"))


class IPFIXFILETests(TestCase):
    """COLLECTOR -> IPFIXFILE."""

    timeout = 180

    def service(self, stacks=STACKS, interval=2, config="", **keywords):
        self.port = free_port("both")
        text = CONFIG.replace("{port}", str(self.port)).replace("{interval}", str(interval)) + config
        service = Service(stacks, text, **keywords)
        (service.directory / "store").mkdir(exist_ok=True)
        return service

    def files(self, service, pattern="*.ipfix"):
        return sorted((service.directory / "store").rglob(pattern))

    def test_totals(self):
        """Several files, each readable alone; together they have what JSON has, and what was sent."""
        with self.service() as service:
            target = f"127.0.0.1:{self.port}"
            udp = generate(target, "-n", 30_000, "-r", 10_000, "-F", 3000)
            tcp = generate(target, "-n", 10_000, "-t", "tcp", "-F", 3000, "-s", 7)
            service.wait_for("file1", "rows_written", 40_000)
            service.wait_for("json1", "rows_written", 40_000)
        counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        self.assertEqual(({}, {}), (counters["file1"]["dropped"], counters["file1"]["errors"]))
        files = self.files(service)
        self.assertGreaterEqual(len(files), 2)
        self.assertEqual([], self.files(service, "*.part"))
        rows = [json.loads(line) for line in (service.directory / "flows.json").read_text().splitlines()]
        expected = (len(rows), *(sum(row[f"{what}DeltaCount"] for row in rows) for what in ("octet", "packet")))
        self.assertEqual((40_000, *(udp[what] + tcp[what] for what in ("octets", "packets"))), expected)
        found, exporters = sums_of_fixbuf(files)
        self.assertEqual((expected, {"127.0.0.1": 40_000}), (found, exporters))
        self.assertEqual((expected, ""), sums_of_tshark(files))
        by_protocol = {}
        for row in rows:
            old = by_protocol.get(row["protocolIdentifier"], (0, 0, 0))
            by_protocol[row["protocolIdentifier"]] = (
                old[0] + 1,
                old[1] + row["packetDeltaCount"],
                old[2] + row["octetDeltaCount"],
            )
        self.assertEqual(by_protocol, read_by_nfdump(self, files))

    def test_read_again(self):
        """The input IPFIXFILE gives every row again, with the exporter of then as the record's own keys."""
        with self.service() as service:
            generate(f"127.0.0.1:{self.port}", "-n", 5000, "-r", 10_000, "-F", 300, "-x")
            service.wait_for("file1", "rows_written", 5000)
            service.wait_for("json1", "rows_written", 5000)
        config = f'[in1]\nfile="{service.directory}/store/*/*.ipfix"\n[json1]\nfile="{{dir}}/flows.json"\n'
        with Service(["in1:IPFIXFILE,json1:JSON"], config) as again:
            again.wait_for("json1", "rows_written", 5000)
        self.assertEqual(({}, {}), (again.counters("in1")["errors"], again.counters("in1")["lost"]))
        origin = {
            "exporter": "exporterIPv4Address",
            "exporter_port": "exporterTransportPort",
            "observationDomainId": "originalObservationDomainId",
            "received_ms": "collectionTimeMilliseconds",
        }
        message_only = {*origin, "templateId", "export_time", "record_kind"}
        expected, found = [], []
        for line in (service.directory / "flows.json").read_text().splitlines():
            row = json.loads(line)
            told = {new: row[old] for old, new in origin.items()}
            expected.append(told | {name: value for name, value in row.items() if name not in message_only})
        for line in (again.directory / "flows.json").read_text().splitlines():
            found.append({name: value for name, value in json.loads(line).items() if name not in message_only})
        self.assertEqual(*(sorted(json.dumps(row, sort_keys=True) for row in rows) for rows in (expected, found)))

    def test_killed(self):
        """After kill -9 under load the next start ends the file; all rows that counted as written are in it."""
        with self.service(interval=3600) as service:
            generate(f"127.0.0.1:{self.port}", "-n", 100_000, "-r", 100_000, "-F", 3000)
            service.wait_for("file1", "rows_written", 50_000)
            written = service.counters("file1")["rows_written"]
            service.kill()
            (part,) = self.files(service, "*.part")
            with open(part, "ab") as file:
                file.write(b"\0\x0a\xff\xff")  # as a message that was cut by a kill in the middle of it
            service.start()
            wait_until(lambda: not part.exists(), what="the leftover is ended")
            generate(f"127.0.0.1:{self.port}", "-n", 1000, "-r", 10_000, "-F", 30)
            service.wait_for("file1", "rows_written", 1000)
        self.assertIn("was left by a process that was killed", service.output())
        files = self.files(service)
        self.assertEqual((2, []), (len(files), self.files(service, "*.part")))
        records, _ = sums_of_fixbuf(files)
        self.assertGreaterEqual(records[0], written + 1000)
        self.assertEqual("", sums_of_tshark(files)[1])

    def test_disk_full(self):
        """On a file system of 1 MB: rows wait and are counted, and are all there when there is room again."""
        require_root()
        folder = temporary("full")
        store = folder / "store"
        store.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], capture_output=True)
        if mounted.returncode:
            self.skipTest(f"needs to mount a tmpfs: {mounted.stderr.decode()}")
        self.addCleanup(subprocess.run, ["umount", store], check=True)
        stuff = store / "stuff"
        stuff.write_bytes(bytes(750_000))
        with self.service(STACKS[:1], 3600, directory=folder) as service:
            generate(f"127.0.0.1:{self.port}", "-n", 5000, "-r", 2500, "-F", 300)
            wait_until(lambda: service.counters("file1")["errors"].get("write"), what="the disk is full")
            self.assertGreater(service.counters("file1")["rows_waiting"], 0)
            stuff.unlink()
            service.wait_for("file1", "rows_written", 5000)
        self.assertIn("files are written again", service.output())
        self.assertEqual(5000, sums_of_fixbuf(self.files(service))[0][0])
        self.assertEqual({}, service.counters("file1")["dropped"])

    def test_signal(self):
        """SIGHUP under load ends the file and begins another; nothing is lost between them."""
        with self.service(STACKS[:1], 3600) as service:
            generator = f"127.0.0.1:{self.port}"
            for _ in range(3):
                generate(generator, "-n", 5000, "-r", 20_000, "-F", 300)
                os.kill(service.pid, signal.SIGHUP)
            service.wait_for("file1", "rows_written", 15_000)
        files = self.files(service)
        self.assertGreaterEqual(len(files), 3)
        self.assertEqual(15_000, sums_of_fixbuf(files)[0][0])

    def test_netflow(self):
        """NetFlow v9 and v5: the fields as IANA's elements, with absolute times."""
        with self.service(STACKS) as service:
            for version in ("v9", "v5"):
                generate(f"127.0.0.1:{self.port}", "-p", version, "-n", 3000, "-r", 10_000, "-F", 300)
            service.wait_for("json1", "rows_written", 6000)
            service.wait_for("file1", "rows_written", 6000)
        rows = [json.loads(line) for line in (service.directory / "flows.json").read_text().splitlines()]
        octets = sum(row.get("octetDeltaCount", row.get("dOctets")) for row in rows)
        packets = sum(row.get("packetDeltaCount", row.get("dPkts")) for row in rows)
        files = self.files(service)
        self.assertEqual((6000, octets, packets), sums_of_fixbuf(files)[0])
        text = "".join(run("ipfixDump", "--in", file) for file in files)
        self.assertEqual(6000, len(re.findall(r"\(152\) +flowStartMilliseconds : 20\d\d-", text)))


class ConnectionsTests(TestCase):
    """NFCT -> IPFIXFILE."""

    timeout = 180

    def test_totals(self):
        """nfdump reads a flow for each direction, with conntrack's packets and octets."""
        require_program("ping", "nft")
        config = '[ct1]\nevent_mask=4\n[file1]\nfile="{dir}/f-%H%M%S.ipfix"\n[json1]\nfile="{dir}/flows.json"\n'
        with NetworkNamespaces(conntrack=True) as spaces:
            with (
                Daemon(server_argv(spaces), lambda d: "ready" in d.output()),
                Service(["ct1:NFCT,file1:IPFIXFILE", "ct1:NFCT,json1:JSON"], config,
                        namespace=lambda argv: spaces.argv("a", argv)) as service,
            ):  # fmt: skip
                run_client(spaces, 20)
                spaces.run("a", ["conntrack", "-F"])
                service.wait_for("ct1", "rows_received", 80)
        rows = [json.loads(line) for line in (service.directory / "flows.json").read_text().splitlines()]
        expected = {}
        for row in rows:
            protocol = row["orig.ip.protocol"]
            for side in ("orig", "reply"):
                packets, octets = row[f"{side}.raw.pktcount"], row[f"{side}.raw.pktlen"]
                if packets:
                    old = expected.get(protocol, (0, 0, 0))
                    expected[protocol] = (old[0] + 1, old[1] + packets, old[2] + octets)
        self.assertGreaterEqual(len(rows), 80)
        (file,) = service.directory.glob("*.ipfix")
        self.assertEqual(expected, read_by_nfdump(self, [file]))
