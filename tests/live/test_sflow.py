"""Datagrams of real sFlow agents, to our collector and to sfcapd. The totals must agree."""

import json
import socket
import subprocess
import time

from twisted.trial.unittest import TestCase

from tests.live.service import Service, temporary, unaccounted
from tests.live.test_softflowd import _add, _listens, _queue
from tests.support import Daemon, free_port, require_program, shared_path, wait_until

OTHERWISE = {"akvorado-sflow-sflow-ipv4-data"}
"""sfcapd takes the length of a record that the agent decoded before that of the raw header beside it."""


def datagrams():
    """All sFlow datagrams of the captures."""
    for path in sorted(shared_path("corpus", "ipfix", "messages").glob("*sflow*.jsonl")):
        if path.stem not in OTHERWISE:
            for line in path.read_text().splitlines():
                octets = bytes.fromhex(json.loads(line)["hex"])
                if octets[:4] == b"\0\0\0\5":
                    yield octets


def send(port):
    """Send them, none faster than a slow reader takes them; how many."""
    sent = list(datagrams())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for octets in sent:
            sender.sendto(octets, ("127.0.0.1", port))
            time.sleep(0.005)
    wait_until(lambda: _queue(port) == 0, what="the datagrams are read")
    return len(sent)


class SflowTests(TestCase):
    """The same datagrams twice."""

    timeout = 120

    def test_totals_equal_those_of_sfcapd(self):
        """Samples, packets and octets by protocol, multiplied by the rates."""
        require_program("sfcapd", "nfdump")
        folder = temporary("sflow")
        theirs, ours = self.sfcapd(folder), self.collector(folder)
        self.assertEqual(set(theirs), {1, 6, 58})
        self.assertEqual(ours, theirs)

    def sfcapd(self, folder):
        """{protocol: [samples, packets, octets]} as nfdump reads what sfcapd stored."""
        store, port = folder / "sfcapd", free_port("udp")
        store.mkdir()
        words = ["sfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600"]
        with Daemon(words, lambda d: _listens(port)) as daemon:
            send(port)
            daemon.stop()
        found = {}
        for file in store.glob("nfcapd.*"):
            words = ["nfdump", "-r", file, "-q", "-N", "-o", "fmt:%pr;%pkt;%byt", "-6"]
            lines = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
            for line in filter(None, map(str.strip, lines)):
                _add(found, *(int(word) for word in line.split(";")))
        return found

    def collector(self, folder):
        """The same out of COLLECTOR -> JSON; AGGREGATE adds up the flow samples alone."""
        port, flows, sums = free_port("udp"), folder / "flows.json", folder / "sums.json"
        config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\nscale_sampled=1\n[json1]\nfile="{flows}"\n'
        config += f'[json2]\nfile="{sums}"\n[agg1]\nkey="protocolIdentifier"\ninterval=3600\n'
        with Service(["col1:COLLECTOR,json1:JSON", "col1:COLLECTOR,agg1:AGGREGATE,json2:JSON"], config) as service:
            sent = send(port)
        counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        self.assertEqual(counters["col1"]["messages_received"], sent)
        found, of_counters = {}, 0
        for row in map(json.loads, flows.read_text().splitlines()):
            if row["record_kind"] == "options":
                of_counters += 1
            elif "protocolIdentifier" in row:
                _add(found, row["protocolIdentifier"], row["packetDeltaCount"], row["octetDeltaCount"])
        self.assertGreater(of_counters, 50)
        added = {}
        for row in map(json.loads, sums.read_text().splitlines()):
            if "protocolIdentifier" in row:
                added[row["protocolIdentifier"]] = [row["flows"], row["packets"], row["octets"]]
        self.assertEqual(added, found)
        return found
