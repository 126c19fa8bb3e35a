"""A collector that is away, and an exporter that is killed meanwhile: what was older than two seconds arrives."""

import time

from twisted.trial.unittest import TestCase

from tests.certificates import CA
from tests.live.service import Service, generate, temporary, unaccounted
from tests.support import free_port, require_library, sized, wait_until


class SpoolTests(TestCase):
    """COLLECTOR -> IPFIX with a spool, to COLLECTOR -> AGGREGATE -> JSON."""

    timeout = sized(120, 400)

    url, theirs, ours = "tcp:127.0.0.1:{far}", "", ""
    """Where the far collector is, and the options of the exporter and of the collector."""

    def sink(self, directory=None):
        """The far collector."""
        config = f'[col1]\nlisten="{self.url}"\n{self.ours}\n[json1]\nfile="{{dir}}/flows.json"\n'
        return Service(["col1:COLLECTOR,json1:JSON"], config, directory=directory)

    def exporter(self, directory=None):
        config = (
            f'[col1]\nlisten="tcp:127.0.0.1:{self.near}"\n[exp1]\ncollectors="{self.url}"\n'
            'reconnect=1\nspool="{dir}/spool"\nspool_rate=100000\n' + self.theirs
        )
        return Service(["col1:COLLECTOR,exp1:IPFIX"], config, directory=directory)

    def send(self, n):
        """Flows to the exporter, over TCP."""
        return generate(f"127.0.0.1:{self.near}", "-n", n, "-t", "tcp", "-r", 10_000, "-F", 1000)["records"]

    def collector(self, service):
        return next(iter(service.counters("exp1")["collectors"].values()))

    def test_outage_and_kill(self):
        """Before the outage, in it, after kill -9 in it, and after it: every record once."""
        self.outage(sized(20_000, 200_000))

    def test_over_sctp(self):
        """The same over SCTP."""
        require_library("libusrsctp.so.2", "libusrsctp2")
        self.url, self.theirs = "sctp:127.0.0.1:4739", f"encapsulation_port={free_port('udp')}\n"
        self.ours = self.theirs
        self.outage(5000)

    def test_over_tls(self):
        """The same over TLS."""
        ca = CA(temporary("spool"))
        self.url = "tls:localhost:{far}"
        self.theirs, self.ours = (
            f'ca="{ca.file}"\ncert="{cert}"\nprivate_key="{key}"\n'
            for cert, key in (ca.issue("exporter", "exporter.example"), ca.issue("collector", "localhost", "127.0.0.1"))
        )
        self.outage(5000)

    def outage(self, n):
        self.near, self.far = free_port("tcp"), free_port("tcp")
        self.url = self.url.replace("{far}", str(self.far))
        with self.exporter() as exporter:
            with self.sink() as far:
                sent = self.send(n)
                far.wait_for("json1", "rows_written", sent)
            sent += self.send(n)
            wait_until(lambda: self.collector(exporter)["records_in_spool"] >= n, 20, "the spool")
            exporter.kill()
        again = self.exporter(exporter.directory)
        with again:
            sent += self.send(n)
            wait_until(lambda: self.collector(again)["records_in_spool"] >= 2 * n, 20, "the spool")
            with self.sink() as later:
                later.wait_for("json1", "rows_written", 2 * n, 60)
                sent += self.send(n)
                later.wait_for("json1", "rows_written", 3 * n, 60)
                time.sleep(1)  # for what would be too much
                wait_until(lambda: self.collector(again)["records_in_spool"] == 0, 20, "an empty spool")
            self.assertEqual({}, later.counters("col1")["lost"])
        got = far.counters("json1")["rows_written"] + later.counters("json1")["rows_written"]
        self.assertEqual(sent, got)
        self.assertEqual({}, self.collector(again)["dropped"])
        self.assertEqual([], list((exporter.directory / "spool").glob("*/*.ipfix")))
        self.assertEqual({}, unaccounted(again.all_counters()))
