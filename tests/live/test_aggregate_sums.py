"""AGGREGATE beside nfdump and pmacct: the same load, added up by several keys, gives the same sums. And a crash."""

import csv
import io
import json
import signal
import subprocess
from collections import Counter
from ipaddress import ip_address, ip_network

import numpy as np
from twisted.trial.unittest import TestCase

from tests.live.service import Service, generate, sleep, temporary, unaccounted
from tests.live.test_softflowd import _listens, _queue
from tests.support import Daemon, free_port, require_program, wait_until

LOAD = ("-n", 100_000, "-r", 50_000, "-F", 20_000, "-s", 7)
"""100,000 IPFIX records of 20,000 IPv4 and IPv6 flows; with one seed the same ones every time."""
KEYS = {
    # ours, nfdump -A, its columns, pmacct's aggregate and columns
    "proto": ("protocolIdentifier", (("proto",),), ("pr",), ("proto",), ("PROTOCOL",)),
    "source": ("sourceAddress", (("srcip",),), ("sa",), ("src_host",), ("SRC_IP",)),
    "port": ("destinationTransportPort", (("dstport",),), ("dp",), ("dst_port",), ("DST_PORT",)),
    "net": ("sourceAddress/24:48", (("srcip4/24", "ipv4"), ("srcip6/48", "ipv6")), ("sa",), None, None),
    "pair": ("sourceAddress,destinationTransportPort", (("srcip,dstport",),), ("sa", "dp"), ("src_host", "dst_port"),
             ("SRC_IP", "DST_PORT")),
}  # fmt: skip
PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ipv6-icmp": 58, "icmp6": 58,
             "pim": 103, "vrrp": 112}  # fmt: skip


class SumsTests(TestCase):
    """(flows, packets, octets) by key, of one load."""

    timeout = 300

    def ours(self, folder, overflow="", gathering=""):
        """{name: {key: [flows, packets, octets]}} of one service with a stack for each key."""
        port = free_port("udp")
        config, stacks = f'[col1]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer=64M\n{gathering}', []
        for name, (key, *_) in KEYS.items():
            stacks.append(f"col1:COLLECTOR,{name}:AGGREGATE,j{name}:JSON")
            config += f'[{name}]\nkey="{key}"\ninterval=86400\n{overflow}[j{name}]\nfile="{{dir}}/{name}.json"\n'
        with Service(stacks, config, directory=folder / "ours") as service:
            self.send(port)
            wait_until(lambda: _queue(port) == 0, what="all is read")
        counters = service.all_counters()
        self.assertEqual({}, unaccounted(counters))
        self.assertEqual(self.sent["records"], counters["col1"]["rows_received"], "datagrams were lost")
        return {name: self.read(folder / "ours" / f"{name}.json", KEYS[name][0].split(",")) for name in KEYS}

    def read(self, path, names):
        found = Counter()
        for row in map(json.loads, path.read_text().splitlines()):
            key = tuple(str(row.get(name, "")) for name in names)
            for what in ("flows", "packets", "octets"):
                found[(*key, what)] += row[what]
        return found

    def send(self, port):
        self.sent = generate(f"127.0.0.1:{port}", *LOAD)

    def test_nfdump(self):
        """nfdump -A over what nfcapd stored."""
        require_program("nfcapd", "nfdump")
        folder = temporary("sums")
        ours = self.ours(folder)
        store = folder / "nfcapd"
        store.mkdir()
        port = free_port("udp")
        words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600", "-B", 67108864]
        with Daemon(words, lambda d: _listens(port)) as daemon:
            self.send(port)
            wait_until(lambda: _queue(port) == 0, what="nfcapd has read all")
            daemon.stop()
        for name, (_, how, columns, *_) in KEYS.items():
            format_ = "fmt:" + ";".join(f"%{c}" for c in (*columns, "fl", "pkt", "byt"))
            lines = []
            for words in how:
                words = ["nfdump", "-R", store, "-A", *words, "-q", "-N", "-6", "-o", format_]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
                lines += done.stdout.splitlines()
            theirs = Counter()
            for line in filter(None, lines):
                *key, flows, packets, octets = (word.strip() for word in line.split(";"))
                for what, value in (("flows", flows), ("packets", packets), ("octets", octets)):
                    theirs[(*map(plain, key), what)] += int(value)
            self.assertGreater(len(theirs), 5)
            self.assertEqual(theirs, ours[name], name)

    def test_nfacctd(self):
        """pmacct's print plugin, a key for each; it counts no flows."""
        require_program("nfacctd")
        folder = temporary("sums")
        ours = self.ours(folder)
        port = free_port("udp")
        keys = {name: words for name, words in KEYS.items() if words[3] is not None}
        lines = ["daemonize: false", "nfacctd_ip: 127.0.0.1", f"nfacctd_port: {port}", "nfacctd_pipe_size: 67108864",
                 "plugins: " + ", ".join(f"print[{name}]" for name in keys), "plugin_buffer_size: 1024000",
                 "plugin_pipe_size: 102400000", "print_output: csv", "nfacctd_renormalize: false"]  # fmt: skip
        for name, words in keys.items():
            lines += [f"aggregate[{name}]: {', '.join(words[3])}", f"print_output_file[{name}]: {folder}/{name}.csv",
                      f"print_refresh_time[{name}]: 3600", f"print_cache_entries[{name}]: 40009"]  # fmt: skip
        (folder / "nfacctd.conf").write_text("\n".join(lines) + "\n")
        with Daemon(["nfacctd", "-f", folder / "nfacctd.conf"], lambda d: _listens(port)) as daemon:
            self.send(port)
            wait_until(lambda: _queue(port) == 0, what="nfacctd has read all")
            sleep(2)  # its processes hand records to each other
            daemon.stop(signal.SIGINT)
        for name, (_, _, _, _, columns) in keys.items():
            wait_until((folder / f"{name}.csv").exists, what=f"the sums of {name}")
            theirs = Counter()
            for row in csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text())):
                key = tuple(plain(row[column]) for column in columns)
                theirs[(*key, "packets")] += int(row["PACKETS"])
                theirs[(*key, "octets")] += int(row["BYTES"])
            figures = {key: value for key, value in ours[name].items() if key[-1] != "flows"}
            self.assertEqual(theirs, figures, name)

    def test_fold(self):
        """With room for a few groups all sums are those that were sent, and nearly all of the largest are there."""
        folder = temporary("sums")
        whole = self.ours(folder)
        # What is folded depends on the order of the rows, in which a batch has one family after the other.
        few = self.ours(folder / "few", 'max_keys=2000\noverflow="fold"\n', "batch_latency=0.004\n")
        for name, found in few.items():
            for what, sent in (("flows", "records"), ("packets", "packets"), ("octets", "octets")):
                self.assertEqual(self.sent[sent], sum(v for key, v in found.items() if key[-1] == what), (name, what))
            largest = sorted((v for key, v in whole[name].items() if key[-1] == "octets"), reverse=True)[:20]
            there = {v for key, v in found.items() if key[-1] == "octets"}
            # batches are cut by time, so on a busy machine one of them may be folded away before it is large
            self.assertLessEqual(len(set(largest) - there), 2, name)


class RestartTests(TestCase):
    """state_file in a real process."""

    timeout = 120

    def test_stop_and_crash(self):
        """A stop in the middle costs nothing; a kill after a checkpoint nothing that came before it."""
        folder = temporary("state")
        port = free_port("udp")
        config = (f'[col1]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer=64M\n[agg1]\ninterval=86400\n'
                  f'state_file="{folder}/state"\ncheckpoint=1\n[out]\nfile="{{dir}}/out.json"\n')  # fmt: skip
        sent = Counter()
        for end in ("stop", "kill", "stop"):
            service = Service(["col1:COLLECTOR,agg1:AGGREGATE,out:JSON"], config, directory=folder / "run")
            service.start()
            self.addCleanup(service.kill)
            load = generate(f"127.0.0.1:{port}", "-n", 50_000, "-r", 100_000, "-F", 5000)
            sent.update({name: load[name] for name in ("records", "packets", "octets")})
            if end == "kill":
                wait_until(lambda: saved(folder / "state") == sent, 20, f"a checkpoint with {sent}")
            else:
                service.wait_for("col1", "rows_received", load["records"])
            getattr(service, end)()
            self.assertEqual(sent, saved(folder / "state"), end)
        self.assertEqual({}, unaccounted(service.all_counters()))
        self.assertGreater(service.counters("agg1")["groups_restored"], 4000)
        self.assertEqual("", (folder / "run" / "out.json").read_text())


def plain(word):
    """A key as our JSON has it: protocols by number, addresses in their short form."""
    if any(c in word for c in ".:"):
        return str(ip_network(word, strict=False).network_address) if "/" in word else str(ip_address(word))
    return str(PROTOCOLS.get(word.lower(), word))


def saved(path):
    """The sums of all groups in a state file, read with NumPy alone: behind a key stand flows, packets and octets."""
    with np.load(path) as arrays:
        tables = [arrays[name] for name in arrays.files if name.endswith(".rows")]
    names = ("records", "packets", "octets")
    return Counter(
        {name: sum(int(t[:, place].sum()) for t in tables) for name, place in zip(names, (-6, -5, -4), strict=True)}
    )
