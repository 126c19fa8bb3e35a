"""Interfaces and addresses that are not there when the service starts, and come later."""

import functools
import json
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import CA
from tests.live.service import Service, temporary
from tests.live.test_collector import data, message, template
from tests.support import NetworkNamespaces, require_program, wait_until

CONFIG = """
[col1]
listen="udp:10.99.0.1:4739 tcp:10.99.0.1:4739 dtls:10.99.0.1:4740 udp:[fd99::1]:4739 udp:[fe80::77%late0]:4739"
ca="CA"
verify=0
cert="CERT"
private_key="KEY"
[flows]
file="{dir}/flows.json"
[p1]
interface=late0
[packets]
file="{dir}/packets.json"
[manhole]
listen="tcp:10.99.0.1:5022"
authorized_keys="LOGIN.pub"
host_key="{dir}/host_key"
"""
SEND = """
import socket, sys
octets = bytes.fromhex(sys.argv[1])
for host in ("10.99.0.1", "fd99::1", "fe80::77%late0"):
    family, kind, _, _, where = socket.getaddrinfo(host, 4739, 0, socket.SOCK_DGRAM)[0]
    socket.socket(family, kind).sendto(octets, where)
socket.create_connection(("10.99.0.1", 4739)).sendall(octets)
"""
GREETING = 'import socket; print(socket.create_connection(("10.99.0.1", 5022)).recv(8).decode())'


class AppearsTests(SynchronousTestCase):
    """COLLECTOR, PACKET and the manhole in a namespace that gets its interface later."""

    def test_interface_and_addresses(self):
        """Both stacks run at once, with a line each for what is missing; all is received when it has come."""
        ca = CA(temporary("appears"))
        cert, key = ca.issue("collector", "10.99.0.1")
        config = CONFIG.replace("CA", str(ca.file)).replace("CERT", str(cert)).replace("KEY", str(key))
        login = temporary("login") / "key"
        subprocess.run([*require_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", login], check=True)
        config = config.replace("LOGIN", str(login))
        with NetworkNamespaces() as spaces:
            stacks = ["col1:COLLECTOR,flows:JSON", "p1:PACKET,base1:BASE,packets:JSON"]
            service = Service(stacks, config, namespace=functools.partial(spaces.argv, "b"))
            with service:
                for line in ("no interface has 10.99.0.1 yet", "no interface has fd99::1 yet", "fe80::77%late0",
                             "interface late0: No such device"):  # fmt: skip
                    self.assertIn(line, service.output())
                for command in ("link add late0 type veth peer name late1", "addr add 10.99.0.1/24 dev late0",
                                "addr add fd99::1/64 dev late0 nodad", "addr add fe80::77/64 dev late0 nodad",
                                "link set late0 up", "link set late1 up"):  # fmt: skip
                    spaces.run("b", ["ip", *command.split()])
                wait_until(lambda: "listens on udp:[fe80::77%late0]:4739 now" in service.output(), 15)
                wait_until(lambda: "interface late0 is there now" in service.output(), 15)
                octets = message(template(), data(3))
                spaces.run("b", [sys.executable, "-c", SEND, octets.hex()])
                self.assertEqual("SSH-2.0-\n", spaces.run("b", [sys.executable, "-c", GREETING]).stdout)
                wait_until(lambda: service.counters("col1")["rows_received"] == 12, 10)
                spaces.run("b", ["ip", "neigh", "add", "10.99.0.9", "lladdr", "02:00:00:00:00:09", "dev", "late0"])
                spaces.run("b", [sys.executable, "-c", SEND.replace('"10.99.0.1", "fd99::1", "fe80::77%late0"',
                           '"10.99.0.9",').rpartition("socket.create")[0], octets.hex()])  # fmt: skip
                path = service.directory / "packets.json"
                wait_until(lambda: path.exists() and "10.99.0.9" in path.read_text(), 10)
            self.assertEqual(12, len((service.directory / "flows.json").read_text().splitlines()))
            self.assertTrue(all(json.loads(line) for line in path.read_text().splitlines()))
