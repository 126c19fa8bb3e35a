"""Workers of a COLLECTOR: what several processes receive gives the same rows as one, whatever happens to them."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from benchmarks import traffic
from benchmarks.sending import IP_PKTINFO
from tests.live.service import Service, ask, sleep, unaccounted
from tests.live.test_softflowd import _queue
from tests.support import free_port, wait_until

RECORDS = 60_000
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
workers={workers}
allow="127.0.0.0/8"
[m1]
match="protocolIdentifier == 6"
[a1]
key="protocolIdentifier,destinationTransportPort/64"
functions="most=max(octetDeltaCount) sources=distinct(sourceTransportPort) middle=quantile(octetDeltaCount,0.5)"
interval=3600
[a2]
key="protocolIdentifier"
interval=1
[j1]
file="{dir}/sums.json"
[j2]
file="{dir}/rows.json"
[j3]
file="{dir}/tcp.json"
"""
STACKS = (
    "col1:COLLECTOR,a1:AGGREGATE,j1:JSON",
    "col1:COLLECTOR,m1:MATCH,j2:JSON",
    "col1:COLLECTOR,m1:MATCH,a2:AGGREGATE,j3:JSON",
)


class Base(TestCase):
    """A service with workers, and exporters of many addresses."""

    timeout = 180

    def setUp(self):
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.out.close)

    def service(self, workers=2, settings=""):
        self.port = free_port("both")
        self.messages = iter(traffic.exporters(10 * RECORDS, 100))  # the same for each service
        config = CONFIG.replace("{port}", str(self.port)).replace("{workers}", str(workers))
        return Service(STACKS, config, settings=f'control_socket="{{dir}}/control"\nreload=1\n{settings}')

    def send(self, records=RECORDS, rate=60_000):
        """Send records from a hundred addresses; a further call goes on where the last one ended."""
        sent, began = 0, time.monotonic()
        for source, octets in self.messages:
            where = b"\0" * 4 + source.to_bytes(4, "big") + b"\0" * 4
            self.out.sendmsg([octets], [(socket.SOL_IP, IP_PKTINFO, where)], 0, ("127.0.0.1", self.port))
            sent += 10 * (len(octets) > 200)  # a template is shorter
            if sent % 1000 == 0:
                time.sleep(max(sent / rate - (time.monotonic() - began), 0))
            if sent == records:
                return records
        raise AssertionError("there are no more records")

    def rows(self, service, name):
        """The rows of a file."""
        return [json.loads(line) for line in (service.directory / name).read_text().splitlines()]

    def flows(self, service, name):
        """The records that the rows of a file sum up."""
        return sum(row["flows"] for row in self.rows(service, name))

    def told(self, service):
        """For a failed test."""
        lines = [line for line in service.output().splitlines() if "domain 1" not in line]
        return "\n".join([str(service.counters("col1")), str(service.counters("a1")), *lines[-30:]])

    def workers(self, service):
        """The processes of the workers."""
        children = open(f"/proc/{service.pid}/task/{service.pid}/children").read().split()
        return [int(pid) for pid in children]

    def received(self, service, records=RECORDS):
        service.wait_for("col1", "rows_received", records, within=60)

    def emit(self, service):
        """Let another run emit the groups that are kept: they are of other settings then."""
        service.config.write_text(service.config.read_text().replace("interval=3600", "interval=1800"))
        runs = service.output().count("stacks running")
        with service:
            wait_until(lambda: service.output().count("stacks running") > runs, 60, "it runs again")
        self.assertIn("they go out now", service.output())

    def whole(self, service):
        """Nothing is missing from the counters."""
        self.assertEqual({}, unaccounted(service.all_counters()))
        self.assertNotIn("a bug", service.output())
        self.assertNotIn("Traceback", service.output())


class SameTests(Base):
    """One process and several."""

    def test_key_by_key(self):
        """Every group has the same sums, extremes, sketches; every row that passes a filter comes over."""
        found = {}
        for number in (1, 2, 3):
            with self.service(number) as service:
                self.send()
                self.received(service)
                if number > 1:
                    self.assertEqual(number, len(self.workers(service)))
                    wait_until(
                        lambda: len(ask(service, "GET", "/api/v1/exporters")["exporters"]) == 100, 30, "exporters"
                    )
            self.whole(service)
            sums = {
                (row["protocolIdentifier"], row["destinationTransportPort/64"]): [
                    row[name] for name in ("flows", "octets", "packets", "most", "sources", "middle")
                ]
                for row in self.rows(service, "sums.json")
            }
            rows = Counter(
                (row["sourceIPv4Address"], row["sourceTransportPort"], row["octetDeltaCount"])
                for row in self.rows(service, "rows.json")
            )
            tcp = sum(row["flows"] for row in self.rows(service, "tcp.json"))
            counters = service.all_counters()
            taken = {name: counters["col1"][name] for name in ("messages_received", "rows_received", "rows_emitted")}
            found[number] = sums, rows, tcp, taken, counters["m1"]["rows_filtered"]
        self.assertEqual(found[1], found[2])
        self.assertEqual(found[1], found[3])
        self.assertEqual(RECORDS, sum(flows for flows, *_ in found[2][0].values()))
        self.assertEqual(sum(found[2][1].values()), found[2][2])

    def test_tcp(self):
        """Connections are received by any of the workers."""
        with self.service() as service:
            connections = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(8)]
            messages = [octets for _, octets in traffic.ipfix(1000)]
            for connection in connections:
                connection.sendall(b"".join(messages))
                connection.close()
            self.received(service, 8000)
        self.whole(service)
        self.assertEqual(8000, self.flows(service, "sums.json"))


class DeathTests(Base):
    """Workers that die, and a service that goes on."""

    def kill(self, service):
        """Kill a worker, and wait until the service has seen it."""
        seen = service.output().count("it is started again")
        os.kill(self.workers(service)[0], signal.SIGKILL)
        wait_until(lambda: service.output().count("it is started again") > seen, 60, "death")

    def test_killed(self):
        """What killed workers held is counted; the others lose nothing, and new ones go on with the sockets."""
        sent = lost = undecoded = 0
        with self.service() as service:
            wait_until(lambda: len(self.workers(service)) == 2, 30, "workers")
            sent += self.send(1000)  # with the templates, which are no records
            self.received(service, 1000)
            while not lost and sent < 50 * 6000:
                wait_until(lambda: len(self.workers(service)) == 2, 30, "workers")
                sent += self.send(6000)
                self.kill(service)
                lost = service.counters("a1")["lost"].get("worker", 0)
            sent += self.send()
            wait_until(lambda: _queue(self.port) == 0, 60, "all is read")
        self.whole(service)
        lost = service.counters("a1")["lost"]["worker"] + service.counters("col1")["lost"].get("worker", 0)
        counters = service.counters("col1")  # a datagram has 10 records
        undecoded = counters["lost"].get("worker_datagrams", 0) + counters["errors"].get("no_template_dropped", 0)
        self.assertEqual(sent, self.flows(service, "sums.json") + lost + 10 * undecoded, self.told(service))


class ServiceDeathTests(Base):
    """The service itself is killed."""

    def kill(self, service):
        """Kill it, and wait until its workers are gone, too."""
        workers = self.workers(service)
        service.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30, "the workers end")

    def test_killed(self):
        """With state_dir every record is in a sum, or counted by the next start as unsaved or not received."""
        sent, lost = 0, 0
        with self.service(settings='state_dir="{dir}/state"') as service:
            for run in range(4):
                wait_until(lambda: len(self.workers(service)) == 2, 30, "workers")
                sent += self.send(1000)  # a message of each exporter tells what was lost before
                self.received(service, 1000)
                if run == 0:
                    sleep(2.5)  # templates go to the disk once a second
                sent += self.send(5000)
                if run < 3:
                    lost += self.lost(service)
                    self.kill(service)
                    (service.directory / "stats.json").unlink()
                    service.start()
                    wait_until((service.directory / "stats.json").exists, 30, "the counters of this run")
            wait_until(lambda: _queue(self.port) == 0, 60, "all is read")
        lost += self.lost(service)
        self.emit(service)
        self.assertEqual(sent, self.flows(service, "sums.json") + lost, self.told(service))
        self.assertLess(0, lost, "nothing was on its way at any kill: the test shows nothing")

    def lost(self, service):
        """The rows that this run has counted as those of the run before."""
        found = service.all_counters()
        reasons = ("col1", "unsaved"), ("col1", "restart"), ("a1", "unsaved")
        return sum(found[name]["lost"].get(reason, 0) for name, reason in reasons)


class ChangeTests(Base):
    """A changed configuration, and another number of workers, while exporters send."""

    def while_sending(self, change, edits, settings=""):
        """Carry out edits, each in the middle of the load; nothing may be lost."""
        with self.service(settings=settings) as service:
            wait_until(lambda: len(self.workers(service)) == 2, 30, "workers")
            sender = threading.Thread(target=self.send, args=(RECORDS, 15_000))
            sender.start()
            for old, new in edits:
                sleep(0.7)
                service.config.write_text(service.config.read_text().replace(old, new))
                change(service)
            sender.join()
            wait_until(lambda: _queue(self.port) == 0, 60, "all is read")
        self.whole(service)
        if settings:  # intervals are in its state: others go out at once
            self.emit(service)
        self.assertEqual(RECORDS, self.flows(service, "sums.json"), self.told(service))
        return service

    def reload(self, service):
        seen = service.output().count("reloaded")
        os.kill(service.pid, signal.SIGHUP)
        wait_until(lambda: service.output().count("reloaded") > seen, 60, "reloaded")

    def restart(self, service):
        seen = service.output().count("stacks running")
        self.assertEqual({"restarting": True}, ask(service, "POST", "/api/v1/restart"))
        wait_until(lambda: service.output().count("stacks running") > seen, 60, "it runs again")

    def test_reload(self):
        """Another filter; then three workers, one, two: templates and Sequence Numbers go with the exporters."""
        edits = ("== 6", "== 17"), ("workers=2", "workers=3"), ("workers=3", "workers=1"), ("workers=1", "workers=2")
        service = self.while_sending(self.reload, edits)
        self.assertEqual({}, service.counters("col1")["lost"])

    def test_restart(self):
        """The same with new processes, which take over the sockets and read the state of all workers."""
        edits = ("", ""), ("workers=2", "workers=3"), ("workers=3", "workers=1"), ("workers=1", "workers=2")
        self.while_sending(self.restart, edits, 'state_dir="{dir}/state"')
