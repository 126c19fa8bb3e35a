"""The wall clock is set while the service runs, by a library that stands between it and the C library."""

import json
import os
import shutil
import socket
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, temporary
from tests.live.test_collector import data, message, template
from tests.support import free_port, require_program, wait_until

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
    char text[32] = {0};
    const char *path = getenv("CLOCK_AHEAD");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}
int clock_gettime(clockid_t id, struct timespec *to) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, to);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) to->tv_sec += ahead();
    return result;
}
int gettimeofday(struct timeval *to, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""
CONFIG = """
[col1]
listen="udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"
[agg1]
key="exporter_port"
interval=2
[out]
file="{{dir}}/agg.json"
[all]
file="{{dir}}/all.json"
"""


class ClockTests(SynchronousTestCase):
    """An hour back, then two forward, with exporters over UDP and TCP all the time."""

    def setUp(self):
        require_program("gcc")
        self.folder = temporary("clock")
        (self.folder / "ahead.c").write_text(SOURCE)
        command = ["gcc", "-shared", "-fPIC", "-o", "ahead.so", "ahead.c", "-ldl"]
        subprocess.run(command, cwd=self.folder, check=True)
        self.set(0)

    def set(self, seconds):
        """The clock of the service is so far ahead now."""
        (self.folder / "new").write_text(f"{seconds}\n")
        shutil.move(self.folder / "new", self.folder / "ahead")

    def send(self, n):
        """So many records over each transport; templates came at the beginning only."""
        for _ in range(n):
            self.number += 1
            octets = message(data(1), sequence=self.number - 1)
            self.udp.send(octets)
            self.tcp.send(octets)

    def test_steps(self):
        """No record is lost, stats and intervals go on, and the service stops at once."""
        port = free_port("both")
        env = os.environ | {"LD_PRELOAD": str(self.folder / "ahead.so"), "CLOCK_AHEAD": str(self.folder / "ahead")}
        stacks = ["col1:COLLECTOR,agg1:AGGREGATE,out:JSON", "col1:COLLECTOR,all:JSON"]
        service = Service(stacks, CONFIG.format(port=port), env=env)
        self.number = 0
        with service:
            self.udp, self.tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
            for made in (self.udp, self.tcp):
                self.addCleanup(made.close)
                made.connect(("127.0.0.1", port))
                made.send(message(template()))
            time.sleep(0.5)
            for total, ahead in enumerate((0, -3600, 3600, 0), 1):
                self.set(ahead)
                time.sleep(1.2)
                self.send(50)
                wait_until(lambda total=total: service.counters("col1")["rows_received"] == 100 * total, 10)
                flows = 100 * total
                wait_until(lambda flows=flows: self.flows(service) == flows, 10)
            began = time.monotonic()
        self.assertLess(time.monotonic() - began, 10)
        counters = service.counters("col1")
        self.assertEqual(({}, {}), (counters["errors"], counters["lost"]))
        self.assertEqual(400, len((service.directory / "all.json").read_text().splitlines()))

    def flows(self, service):
        """Records in the intervals that were written."""
        path = service.directory / "agg.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(json.loads(line)["flows"] for line in lines)
