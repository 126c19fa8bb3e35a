"""Workers of a COLLECTOR beside one process: records a second that they take out of the kernel, and what these cost.

The program is stopped (SIGSTOP), the buffers of its sockets are filled from many addresses, and it goes on: so the
sender takes no time of the cores. Counted is until the buffers are empty, and until the processes are idle again.
"""

import os
import signal
import statistics
import sys
import time

from benchmarks import sending, traffic
from benchmarks.measuring import cpu, kernels, processes, settle
from tests.live.service import Service, temporary, unaccounted
from tests.live.test_softflowd import _queue
from tests.support import free_port, wait_until

RUNS, RECORDS, EXPORTERS, PER = 5, 6_000_000, 200, 28
BUFFER = 1 << 30
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port}"
receive_buffer=1G
workers={workers}
[a1]
key="{key}"
interval=3600
[j1]
file="{dir}/sums.json"
"""
KEYS = {"5-tuple": "5tuple", "protocol": "protocolIdentifier"}


class Filled:
    """A service whose buffers are filled while it is stopped."""

    def __init__(self, path, count):
        self.path, self.count = path, count

    def measure(self, workers, key, records):
        """(million records a second, CPU seconds a million)."""
        port = free_port("udp")
        config = CONFIG.replace("{port}", str(port)).replace("{workers}", str(workers)).replace("{key}", key)
        with Service(["col1:COLLECTOR,a1:AGGREGATE,j1:JSON"], config) as service:
            wait_until(lambda: len(processes(service.pid)) == (1 if workers == 1 else 1 + workers), 30, "workers")
            settle(service.pid)
            every = processes(service.pid)
            for pid in every:
                os.kill(pid, signal.SIGSTOP)
            with sending.Sender(f"127.0.0.1:{port}", EXPORTERS, self.path, 1_000_000, self.path + "-data") as sender:
                sender.send()
                sender.send()
            before, began = cpu(service.pid), time.monotonic()
            for pid in every:
                os.kill(pid, signal.SIGCONT)
            while _queue(port):
                time.sleep(0.001)
            seconds = time.monotonic() - began
            settle(service.pid)
            used = cpu(service.pid) - before
            service.wait_for("col1", "rows_received", 1)
        counters = service.all_counters()
        taken = counters["col1"]["rows_received"]
        assert taken == records and not unaccounted(counters), (taken, records, counters["col1"])
        return taken / seconds / 1e6, used / taken * 1e6


def main():
    """Print the table."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    folder = temporary("bench-workers")
    messages = list(traffic.exporters(records, EXPORTERS, PER))
    path = str(folder / "told")
    sending.write(path, messages[:EXPORTERS])
    sending.write(path + "-data", messages[EXPORTERS:])
    filled = Filled(path, len(messages) - EXPORTERS)
    print(f"kernels: {kernels()}; {records:,} records of {EXPORTERS} exporters, {RUNS} runs in turn")
    print("| key | workers | M records/s | CPU s/M |\n|---|---|---|---|")
    for title, key in KEYS.items():
        found = {workers: [] for workers in (1, 2)}
        for _ in range(RUNS):
            for workers, figures in found.items():
                figures.append(filled.measure(workers, key, records))
        for workers, figures in found.items():
            rates, costs = zip(*figures, strict=True)
            print(f"| {title} | {workers} | {statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f}) | "
                  f"{statistics.median(costs):.3f} ({min(costs):.3f} to {max(costs):.3f}) |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
