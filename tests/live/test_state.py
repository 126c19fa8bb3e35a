"""Aggregates over a restart and a kill of the service."""

import time

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, temporary
from tests.support import free_port
from ulogd_tw.ask import ask

N = 20_000


class StateTests(SynchronousTestCase):
    """COLLECTOR -> AGGREGATE with a state_file."""

    def service(self, folder, port):
        config = (
            f'[col1]\nlisten="udp:127.0.0.1:{port}"\n[agg1]\nkey="5tuple"\ninterval=36000\nstate_file="{{dir}}/state"\n'
            'checkpoint=0.5\n[json1]\nfile="{dir}/flows.json"\n'
        )
        return Service(["col1:COLLECTOR,agg1:AGGREGATE,json1:JSON"], config, directory=folder,
                       settings='query_socket="{dir}/ask"')  # fmt: skip

    def sums(self, service):
        """Flows and octets that the service holds."""
        text = "select sum(flows), sum(octets) from agg1"
        (row,) = ask(str(service.directory / "ask"), {"sql": text})["rows"]
        return row

    def test_restart_and_kill(self):
        """What was older than a checkpoint is there after kill -9, all of it after a stop; nothing twice."""
        folder, port = temporary("state"), free_port("udp")
        with self.service(folder, port) as first:
            octets = generate(f"127.0.0.1:{port}", "-n", N)["octets"]
            first.wait_for("agg1", "rows_merged", N)
            time.sleep(2)
            first.kill()
        with self.service(folder, port) as second:
            self.assertEqual([N, octets], self.sums(second))
            octets += generate(f"127.0.0.1:{port}", "-n", N)["octets"]
            second.wait_for("agg1", "rows_merged", N)
        with self.service(folder, port) as third:
            self.assertEqual([2 * N, octets], self.sums(third))
        self.assertEqual("", (folder / "flows.json").read_text() if (folder / "flows.json").exists() else "")
