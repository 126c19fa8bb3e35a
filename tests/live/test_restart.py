"""A restart while exporters send: the next process goes on with the sockets, and every record comes once."""

import json
import os
import signal
import socket

from twisted.trial.unittest import TestCase

from tests.live.exporters import started
from tests.live.service import Service, ask, sleep, unaccounted
from tests.live.test_softflowd import _queue
from tests.support import free_port, wait_until

RECORDS, RATE = 400_000, 100_000
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[agg1]
key="exporter,observationDomainId"
interval=86400
[j1]
file="{dir}/agg.json"
"""
STACKS = ("col1:COLLECTOR,agg1:AGGREGATE,j1:JSON",)


class RestartTests(TestCase):
    """Sums of the rows written before and after are those that were sent."""

    timeout = 120

    def setUp(self):
        self.port = free_port("both")

    def service(self, settings="", **keywords):
        return Service(
            STACKS,
            CONFIG.replace("{port}", str(self.port)),
            settings=f'control_socket="{{dir}}/control"\n{settings}',
            **keywords,
        )

    def restart(self, service):
        """Ask for a restart, and wait for the next start."""
        starts = service.output().count("stacks run")
        self.assertEqual({"restarting": True}, ask(service, "POST", "/api/v1/restart"))
        wait_until(lambda: service.output().count("stacks run") == starts + 1, 30.0, "it runs again")

    def sums(self, service):
        rows = [json.loads(line) for line in (service.directory / "agg.json").read_text().splitlines()]
        return sum(row["flows"] for row in rows), sum(row["octets"] for row in rows), len(rows)

    def while_sending(self, again=0, settings="", edits=(("", ""),)):
        with self.service(settings) as service:
            pid = service.pid
            load = started(self.port, "udp", RECORDS, RATE, 3, again)
            sleep(1.0)
            for edit in edits:
                service.config.write_text(service.config.read_text().replace(*edit))
                self.restart(service)
                os.kill(pid, 0)
            sent = json.loads(load.communicate(timeout=60)[0])
            wait_until(lambda: _queue(self.port) == 0, what="all is read")
        self.assertEqual({}, unaccounted(service.all_counters()))
        self.assertNotIn("Traceback", service.output())
        return sent, service

    def test_exporters(self):
        """Three exporters over UDP; without state_dir groups are emitted at the end, and records wait for templates."""
        sent, service = self.while_sending(again=64)
        self.assertEqual((sent["records"], sent["octets"]), self.sums(service)[:2], service.output()[-3000:])

    def test_state(self):
        """With state_dir the next process goes on with open intervals and Sequence Numbers.

        Groups that the new configuration does not go on with are in the file of the output.
        """
        edits = ("", ""), ("86400", "3600"), ("agg1", "agg2"), ("exporter,", ""), ("", "")
        sent, service = self.while_sending(settings='reload=1\nstate_dir="{dir}/state"', edits=edits)
        self.assertEqual(3, service.output().count("groups are handed on, since"))
        config = service.config.read_text()  # a change while nothing runs
        service.config.write_text(config.replace("observationDomainId", "exporter").replace("3600", "86400"))
        with service:
            wait_until(lambda: service.output().count("stacks run") == 7, 20.0, "it runs again")
            self.assertIn("with another key, interval; they go out now", service.output())
            service.config.write_text(service.config.read_text().replace("86400", "1"))
            os.kill(service.pid, signal.SIGHUP)
            wait_until(lambda: "its groups are handed on" in service.output(), 20.0, "the reload")
        found = self.sums(service)
        self.assertEqual((sent["records"], sent["octets"]), found[:2], service.output()[-3000:])

    def test_refused(self):
        """Where no service could start the old process goes on, and the answer says why."""
        with self.service() as service:
            wait_until(lambda: "ulogd-tw status -s" in service.output(), 20.0, "the control socket")
            text = service.config.read_text()
            for wrong in (text.replace("agg.json", "nodir/agg.json"), text.replace("86400", "often"), None):
                service.config.unlink(missing_ok=True)
                if wrong is not None:
                    service.config.write_text(wrong)
                answer = ask(service, "POST", "/api/v1/restart")
                self.assertRegex(answer["mistakes"][0], "no directory|often|cannot be read")
            self.refused_for_others(service, text)
            text = text.replace("127.0.0.1:", "")  # sockets for all addresses, in the way of which the former ones are
            for now in (text, text, text.replace("udp:", "udp:127.0.0.1:").replace("tcp:", "tcp:127.0.0.1:")):
                service.config.write_text(now)
                self.restart(service)
                self.assertNotIn("Address already in use", service.output())

    def refused_for_others(self, service, text):
        """A stack more that cannot run, and addresses that another program has, of a stack and of [http]."""
        with socket.create_server(("127.0.0.1", 0)) as other, socket.socket(type=socket.SOCK_DGRAM) as second:
            second.bind(("", 0))
            port, udp = other.getsockname()[1], second.getsockname()[1]
            more = "stack=col2:COLLECTOR,j1:JSON\n[col1]", f'[col2]\nlisten="tcp:127.0.0.1:{port}"\n[agg1]'
            for wrong, words in (
                (text.replace("udp:", f"udp:{udp} udp:"), f"udp:{udp}: Address already in use; another program"),
                (text.replace("[col1]", more[0], 1).replace("[agg1]", more[1], 1), "another program has it"),
                (text.replace("[agg1]", f'[http]\nlisten="tcp:127.0.0.1:{port}"\n[agg1]'), "http.*another program"),
                (text.replace("[col1]", "stack=col1:COLLECTOR,x:NO\n[col1]"), "NO"),
            ):
                service.config.write_text(wrong)
                answer = ask(service, "POST", "/api/v1/restart")
                self.assertRegex("\n".join(answer.get("mistakes", [str(answer)])), words)

    def test_connections(self):
        """An exporter of this program over TCP sends again what its collector had not read; neither restart loses."""
        exporter = Service(
            ["in1:COLLECTOR,out1:IPFIX"],
            f"""[in1]\nlisten="udp:127.0.0.1:{(udp := free_port("udp"))}"
            [out1]\ncollectors="tcp:127.0.0.1:{self.port}"\nreconnect=0.2\nspool="{{dir}}/spool"\n""",
            settings='control_socket="{dir}/control"\nstate_dir="{dir}/state"',
        )
        with self.service('reload=1\nstate_dir="{dir}/state"') as service, exporter:
            load = started(udp, "udp", RECORDS // 2, RATE // 2)
            sleep(1.0)
            self.restart(service)
            sleep(0.5)
            self.restart(exporter)
            sleep(0.5)
            self.restart(service)
            sent = json.loads(load.communicate(timeout=60)[0])
            exporter.stop()
            wait_until(lambda: ask(service, "GET", "/api/v1/exporters") is not None, what="an answer")
            service.config.write_text(service.config.read_text().replace("86400", "1"))
            os.kill(service.pid, signal.SIGHUP)
            wait_until(lambda: "its groups are handed on" in service.output(), 20.0, "the reload")
        self.assertEqual({}, unaccounted(service.all_counters()))
        found = self.sums(service)
        self.assertEqual(
            (sent["records"], sent["octets"]), found[:2], exporter.output()[-3000:] + service.output()[-3000:]
        )
