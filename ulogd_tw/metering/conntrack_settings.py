"""The kernel settings for connection tracking: finds those that suppress wanted keys, and mends them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from ulogd_tw.core.plugin import ALL, Wanted

SNMP = Path("/proc/net/snmp")
SYSCTLS = Path("/proc/sys/net/netfilter")
"""It shows the network namespace of the reading thread."""
COUNTERS = tuple(f"{side}.raw.{what}" for side in ("orig", "reply") for what in ("pktlen", "pktcount"))
TIMES = tuple(f"flow.{edge}.{part}" for edge in ("start", "end") for part in ("sec", "usec")) + (
    "flowStartMilliseconds", "flowEndMilliseconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl below net.netfilter; its value `bad` has the effect `what`. `keys`: affected keys, () for every row."""

    name: str
    bad: str
    what: str
    keys: tuple[str, ...] = ()
    of_events: bool = False

    @property
    def remedy(self) -> str:
        return f"net.netfilter.{self.name}=1"


SETTINGS = (
    Setting("nf_conntrack_acct", "0", "accounting is off (no packets and octets)", COUNTERS),
    Setting("nf_conntrack_timestamp", "0", "timestamps are off (no start times)", TIMES),
    Setting("nf_conntrack_events", "0", "events are off (no flows)", of_events=True),
    Setting("nf_conntrack_events", "2", "events are sent only for connections that began after the first listener "
            "(older ones are found by their absence, without an end time)", of_events=True),
)  # fmt: skip
TRACKING = (
    "nft 'add table inet flows; add chain inet flows track { type filter hook output priority 0; }; "
    "add rule inet flows track ct state new counter'"
)
"""A command that makes the kernel track all connections: any rule with `ct state` does."""


def loaded() -> bool:
    """Whether connection tracking is loaded."""
    return (SYSCTLS / "nf_conntrack_acct").exists()


def read(name: str) -> str:
    """The setting, empty if it cannot be read (a container may hide it)."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError:
        return ""


def packets() -> int:
    """IPv4 packets that this network namespace has sent and received so far; 0 where that cannot be read."""
    try:
        names, values = (line.split() for line in SNMP.read_text().splitlines() if line.startswith("Ip:"))
    except (OSError, ValueError):
        return 0
    counted = dict(zip(names[1:], values[1:], strict=False))
    return sum(int(counted.get(name, 0)) for name in ("InReceives", "OutRequests"))


def tracks(since: int) -> bool | None:
    """Whether the kernel tracks the connections of this network namespace, as it does once a firewall rule needs it.

    `since` is what `packets` gave before. None where nothing shows it: no connection, and no packet since then.
    """
    count = read("nf_conntrack_count")
    if count != "0":
        return True if count.isdecimal() else None
    return False if packets() > since else None


def tracks_a_packet() -> bool | None:
    """As `tracks`, by a datagram to ourselves, which may become a connection of its own."""
    before = packets()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.bind(("127.0.0.1", 0))
            ours.connect(ours.getsockname())
            ours.send(b"\0")
    except OSError:  # loopback is down
        return None
    return tracks(before)


def wrong(wanted: Wanted = ALL, events: bool = True) -> list[Setting]:
    """The settings that suppress some of the `wanted` keys."""
    return [
        setting
        for setting in SETTINGS
        if (events or not setting.of_events)
        and (not setting.keys or any(key in wanted for key in setting.keys))
        and read(setting.name) == setting.bad
    ]


def mend(setting: Setting) -> None:
    """Set it to 1. Raises OSError."""
    (SYSCTLS / setting.name).write_text("1\n")
