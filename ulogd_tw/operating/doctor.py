"""``ulogd-tw doctor``: checks a machine against a configuration's needs, with a remedy for each fault.

With a configuration, only the needs of its stacks are checked; without one, everything for conntrack.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ulogd_tw import config as configuration
from ulogd_tw import kernels, left_behind, tap
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.left_behind import Present
from ulogd_tw.metering import conntrack_settings
from ulogd_tw.operating import network
from ulogd_tw.operating.commands import tree
from ulogd_tw.peers import TRANSPORTS
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink.port import GRANT

OK, WRONG, UNUSED, REMARK = "ok", "wrong", "unused", "remark"
_NET_ADMIN, _NET_RAW, _SYS_ADMIN = 12, 13, 21
"""Numbers of capabilities (linux/capability.h)."""
_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_DESTROY = 12, 270, 1, 3
_GET_STATS = 0x105
"""NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS, a request with one short answer."""
_ERROR = 2
_OPTIONAL = {
    "duckdb": "answers ulogd-tw query faster",
    "psycopg": "writes rows into PostgreSQL (PGSQL)",
    "confluent_kafka": "sends rows to Kafka (KAFKA)",
    "maxminddb": "reads databases of countries and autonomous systems for GROUP",
}
"""Optional libraries, with their only uses."""
_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")


@dataclass(frozen=True, slots=True)
class Finding:
    """One point: its state, the finding, and the remedy."""

    state: str
    name: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


Findings = Iterator[Finding]


class Machine:
    """The checks for a configuration's needs. `graph` None: no configuration."""

    def __init__(self, graph: Any = None) -> None:
        self.plugins = [node.plugin for node in graph.nodes] if graph is not None else []
        self.whole = graph is None
        self.capabilities = _capabilities()

    def named(self, *names: str) -> list[Any]:
        return [plugin for plugin in self.plugins if plugin.name in names]

    def findings(self) -> Findings:
        checks: tuple[Callable[[], Findings], ...] = (
            self.privileges, self.conntrack, self.nflog, self.buffers, self.transports, self.network,
            self.packages,
        )  # fmt: skip
        for check in checks:
            yield from check()

    # --- privileges -------------------------------------------------------------------------------------------------

    def may(self, capability: int) -> bool:
        return bool(self.capabilities >> capability & 1)

    def privileges(self) -> Findings:
        netlink = self.whole or self.named("NFCT", "NFLOG", "NFACCT")
        if self.may(_NET_ADMIN):
            yield Finding(OK, "CAP_NET_ADMIN", "there")
        elif netlink:
            yield Finding(WRONG, "CAP_NET_ADMIN", "missing, so the kernel gives no flows or packets", GRANT)
        else:
            yield Finding(UNUSED, "CAP_NET_ADMIN", "missing, and no stack needs it")
        if self.named("PACKET") and not self.may(_NET_RAW):
            remedy = GRANT.replace("NET_ADMIN", "NET_RAW").replace("net_admin", "net_raw")
            yield Finding(WRONG, "CAP_NET_RAW", "missing, so PACKET cannot capture", remedy)
        elsewhere = [path for path in self._namespaces() if path]
        if elsewhere and not self.may(_SYS_ADMIN):
            remedy = GRANT.replace("NET_ADMIN", "SYS_ADMIN").replace("net_admin", "sys_admin")
            yield Finding(WRONG, "CAP_SYS_ADMIN", f"missing; entering {', '.join(elsewhere)} needs it", remedy)

    # --- netfilter --------------------------------------------------------------------------------------------------

    def _namespaces(self) -> list[str]:
        """The network namespaces of NFCT; "" is the present one."""
        if self.whole:
            return [""]
        return list(dict.fromkeys(plugin.config.network_namespace_path for plugin in self.named("NFCT")))

    def conntrack(self) -> Findings:
        for path in self._namespaces():
            where = f" in {path}" if path else ""
            try:
                with inside(path):
                    yield from self._netlink(where)
                    yield from self._settings(where)
            except OSError as error:
                yield Finding(WRONG, f"network namespace {path}", str(error.strerror), "ip netns list shows the names")

    def _netlink(self, where: str) -> Findings:
        name = "conntrack over netlink" + where
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as made:
                made.settimeout(2)
                made.bind((0, 0))
                # nlmsghdr with NLM_F_REQUEST | NLM_F_ACK, nfgenmsg
                made.send(struct.pack("=IHHIIBBH", 20, _GET_STATS, 5, 1, 0, 0, 0, 0))
                answer = made.recv(4096)
                code = 0
                if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
                    code = -struct.unpack_from("=i", answer, 16)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_DESTROY)
        except OSError as error:
            remedy = GRANT if error.errno in (errno.EPERM, errno.EACCES) else "modprobe nf_conntrack_netlink"
            yield Finding(WRONG, name, error.strerror or str(error), remedy)
        else:
            yield Finding(OK, name, "answers")

    def _settings(self, where: str) -> Findings:
        if not conntrack_settings.loaded():
            yield Finding(
                WRONG, "conntrack" + where, "not loaded", conntrack_settings.TRACKING
            )  # fmt: skip
            return
        if conntrack_settings.tracks_a_packet() is False:
            yield Finding(
                WRONG, "conntrack" + where, "tracks no connections, since no firewall rule needs it",
                conntrack_settings.TRACKING,
            )  # fmt: skip
        plugins = self.named("NFCT")
        mends = bool(plugins) and all(plugin.config.sysctl for plugin in plugins)
        wrong = {setting.name: setting for setting in conntrack_settings.wrong()}
        for name in dict.fromkeys(setting.name for setting in conntrack_settings.SETTINGS):
            found = f"{conntrack_settings.read(name) or 'cannot be read'}{where}"
            if name not in wrong:
                yield Finding(OK, name, found)
            elif mends:
                yield Finding(OK, name, f"{found}; sysctl=1 sets it at the start")
            else:
                yield Finding(WRONG, name, f"{found}: {wrong[name].what}", f"sysctl -w {wrong[name].remedy}")
        yield from self._fill(where)

    def _fill(self, where: str) -> Findings:
        count, most = (conntrack_settings.read(f"nf_conntrack_{name}") for name in ("count", "max"))
        if not (count.isdecimal() and most.isdecimal() and int(most)):
            return
        found = f"{count} of {most} flows{where}"
        if int(count) > 0.9 * int(most):
            yield Finding(WRONG, "nf_conntrack_max", found, f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}")
        else:
            yield Finding(OK, "nf_conntrack_max", found)

    def nflog(self) -> Findings:
        loaded = Path("/proc/net/netfilter/nfnetlink_log").exists()
        if loaded:
            yield Finding(OK, "nfnetlink_log", "loaded")
        elif self.named("NFLOG"):
            yield Finding(WRONG, "nfnetlink_log", "not loaded", "modprobe nfnetlink_log")
        else:
            yield Finding(UNUSED, "nfnetlink_log", "not loaded, and no stack needs it")

    # --- sockets ----------------------------------------------------------------------------------------------------

    def buffers(self) -> Findings:
        """Receive buffers beyond net.core.rmem_max need CAP_NET_ADMIN."""
        try:
            most = int(_RMEM_MAX.read_text())
        except (OSError, ValueError):
            return  # not in a namespace of its own; the sockets say what they got
        sizes = [p.config.receive_buffer for p in self.plugins if hasattr(p.config, "receive_buffer")]
        wanted = max(sizes, default=0)
        if wanted > most and not self.may(_NET_ADMIN):
            remedy = f"sysctl -w net.core.rmem_max={wanted}"
            yield Finding(WRONG, "net.core.rmem_max", f"{most}, below receive_buffer", remedy)
        else:
            yield Finding(OK, "net.core.rmem_max", f"{most}" + (", CAP_NET_ADMIN goes beyond" if wanted > most else ""))

    def transports(self) -> Findings:
        """Transports not available on every machine."""
        words = [str(word).strip().lower() for p in self.plugins for option in ("listen", "collectors")
                 for word in _words(getattr(p.config, option, ""))]  # fmt: skip
        for scheme, transport in TRANSPORTS.items():
            state = transport.availability()
            if state is None:
                continue
            if state.there:
                yield Finding(OK, scheme.upper(), state.found)
            elif any(word.startswith(f"{scheme}:") for word in words):
                yield Finding(WRONG, scheme.upper(), state.found, state.remedy)
            else:
                yield Finding(UNUSED, scheme.upper(), state.found)

    def network(self) -> Findings:
        """Interfaces, addresses and routes that the configuration names."""
        try:
            for name, found, fault, remedy in network.points(self.plugins):
                yield Finding(WRONG if fault else OK, name, fault or found, remedy)
        except (OSError, UlogdError) as error:
            yield Finding(WRONG, "network", f"the kernel does not tell: {error}")

    # --- Python -----------------------------------------------------------------------------------------------------

    def packages(self) -> Findings:
        """Optional packages; if a stack needs a missing one, that is a mistake of the configuration."""
        if kernels.active():
            yield Finding(OK, "compiled kernels", ", ".join(kernels.active()))
        else:
            yield Finding(UNUSED, "compiled kernels", "NumPy does their work, which takes more time", kernels.why_not())
        for library, use in _OPTIONAL.items():
            if is_there(library):
                yield Finding(OK, library, "installed")
            else:
                yield Finding(UNUSED, library, f"not installed; it {use}", install(library))


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _capabilities() -> int:
    """The effective capabilities of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def configured(path: str) -> tuple[list[Finding], Any]:
    """The mistakes of a configuration and its stacks, and its graph; None for an unreadable configuration.

    What an old configuration may keep is no fault of the machine: a warning or a remark.
    """
    try:
        built = tap.Built(configuration.load(path), prepare=False)
    except UlogdError as error:
        return [Finding(WRONG, "configuration", str(error))], None
    graph, seen = tap.looked_at(built)
    found = [] if built.forbidden else [Finding(OK, "stack", stack.spec.text) for stack in graph.stacks]
    found += [
        Finding(
            REMARK if mistake.tolerated and mistake not in built.forbidden else WRONG, "configuration", str(mistake)
        )
        for mistake in (*built.mistakes, *seen)
    ]
    found += _left_behind(built)
    return found, built.graph


def _left_behind(built: Any) -> Findings:
    """What instances that are in no stack any more have left on the disk."""
    present = Present.of(built.graph, built.settings.state_dir, built.spools, list(built.left_out()))
    for left in left_behind.found(present):
        yield Finding(REMARK, "left behind", str(left), left_behind.REMEDY)


def examine(path: str | None) -> list[Finding]:
    """All findings, those of the configuration first."""
    found: list[Finding] = []
    graph = None
    if path is None and Path(configuration.default_path()).exists():
        path = configuration.default_path()
    if path is not None:
        found, graph = configured(path)
    return [*found, *Machine(graph).findings()]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    return tree.of("doctor")


def run(given: argparse.Namespace, out: TextIO) -> int:
    """Print every point; the exit status: 0 where nothing is wrong."""
    findings = examine(getattr(given, "configfile", None))
    if given.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1), file=out)
    for finding in findings if not given.json else ():
        print(finding, file=out)
    return int(any(finding.state == WRONG for finding in findings))


def main(argv: list[str]) -> int:
    """The command with these arguments."""
    return run(parser().parse_args(argv), sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
