"""Receive, decode and add up by 5-tuple: this project beside nfacctd, and beside nfcapd which only stores.

CPU seconds of all processes of each program for a million records, at a rate that none of them loses; then the
highest rate without loss. Needs nfdump, pmacct, gcc and the load generator of `shared/tools`.
"""

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.live import service
from tests.live.service import generate
from tests.support import Daemon, free_port, require_program, wait_until

RUNS = 5
RECORDS = 2_000_000
RATE = 400_000
TICKS = os.sysconf("SC_CLK_TCK")


class Service(service.Service):
    """As administrators run it."""

    STATS_INTERVAL = None


def cpu(pid):
    """CPU seconds of a process and its children."""
    total = 0.0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        total += cpu(int(child))
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return total + sum(map(int, words[11:15])) / TICKS


class Used:
    """CPU seconds of a process and all that came from it, of which those count too that nobody waits for.

    They are looked at every 20 ms, so that one that ends is missed by as much.
    """

    def __init__(self, pid):
        self.pid = pid
        self._found = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def seconds(self):
        """Until now."""
        return sum(self._found.copy().values()) / TICKS

    def settle(self):
        """Wait until next to nothing has been used for a second, at most half a minute."""
        for _ in range(30):
            before = self.seconds
            time.sleep(1)
            if self.seconds - before < 0.03:
                return

    def end(self):
        """Look no more; wait for what came from the process, which has ended, and end what does not end."""
        self._ended.set()
        self._thread.join()
        try:
            wait_until(lambda: not any(map(self._runs, self._found)), 20)
        except AssertionError:
            for pid in filter(self._runs, self._found):
                os.kill(pid, signal.SIGKILL)

    def _runs(self, pid):
        words = _stat(pid)
        return bool(words) and words[0] != "Z"

    def _watch(self):
        while not self._ended.wait(0.02):
            pids = [self.pid]
            for pid in pids:
                words = _stat(pid)
                if words:
                    self._found[pid] = sum(map(int, words[11:13]))
                    pids += _children(pid)


def _stat(pid):
    """The words of /proc/PID/stat behind the name; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _children(pid):
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def drops(port):
    """Datagrams that the kernel dropped at UDP sockets of this port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if int(line.split()[1].split(":")[1], 16) == port)


def ours(directory, port):
    """The service: COLLECTOR -> AGGREGATE, nothing emitted before the end."""
    config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\n[agg1]\nkey="5tuple"\ninterval=3600\n[out]\nfile="/dev/null"\n'
    return Service(["col1:COLLECTOR,agg1:AGGREGATE,out:GPRINT"], config, directory=directory).daemon


def nfacctd(directory, port):
    """pmacct's collector with the print plugin, the same key, the same socket buffer."""
    text = f"""daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: {port}
nfacctd_pipe_size: 67108864
plugins: print[a]
aggregate[a]: src_host, dst_host, src_port, dst_port, proto
print_output_file[a]: {directory}/nfacctd.out
print_refresh_time[a]: 3600
print_cache_entries[a]: 400003
plugin_buffer_size: 1024000
plugin_pipe_size: 102400000
"""
    (directory / "nfacctd.conf").write_text(text)
    (program,) = require_program("nfacctd")
    return Daemon([program, "-f", directory / "nfacctd.conf"], lambda d: listens(port))


def nfcapd(directory, port):
    """nfdump's collector: stores every record."""
    (program,) = require_program("nfcapd")
    words = [program, "-b", "127.0.0.1", "-p", port, "-w", directory, "-t", 3600, "-B", 67108864]
    return Daemon(words, lambda d: listens(port))


def listens(port):
    """Whether a UDP socket has this port."""
    return any(int(line.split()[1].split(":")[1], 16) == port for line in
               Path("/proc/net/udp").read_text().splitlines()[1:])  # fmt: skip


def run(make, rate, records, flows):
    """(CPU seconds a million records, datagrams lost) of one run."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port("udp")
        with make(Path(folder), port) as daemon:
            time.sleep(0.5)
            before = cpu(daemon.pid)
            sent = generate(f"127.0.0.1:{port}", "-n", records, "-r", rate, "-F", flows)
            time.sleep(0.7)
            found = (cpu(daemon.pid) - before) / sent["records"] * 1e6, drops(port)
            daemon.stop(signal.SIGINT)  # by which nfacctd ends its plugins
            return found


def main():
    """Print both tables; a number as argument is the rate of the first, records a second."""
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else RATE
    programs = {"ulogd_tw": ours, "nfacctd": nfacctd, "nfcapd (stores only)": nfcapd}
    cores = os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}")
    print(subprocess.run(["dpkg-query", "-W", "nfdump", "pmacct"], capture_output=True, text=True, check=False).stdout)
    figures = {name: [] for name in programs}
    for _ in range(RUNS):
        for name, make in programs.items():
            figures[name].append(run(make, rate, RECORDS, 100_000))
    ours_ = statistics.median(f for f, _ in figures["ulogd_tw"])
    print(f"CPU s a million records at {rate} records/s, 100 k flows (zipf), median of {RUNS}:")
    for name, found in figures.items():
        median = statistics.median(f for f, _ in found)
        print(f"  {name:22} {median:6.3f}   {median / ours_:5.2f} x   datagrams lost {sum(d for _, d in found)}")
    print("highest rate without loss (one run a rate, 2 M records):")
    for name, make in programs.items():
        best = 0
        for rate in (500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 4_000_000):
            if run(make, rate, RECORDS, 100_000)[1]:
                break
            best = rate
        print(f"  {name:22} {best / 1e6:.1f} M/s")


if __name__ == "__main__":
    main()
