"""The settings of the kernel's connection tracking: which of them take away what is wanted, and how to mend that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ulogd_tw.core.plugin import ALL, Wanted

SYSCTLS = Path("/proc/sys/net/netfilter")
"""Of the network namespace of the thread that reads it."""
COUNTERS = tuple(f"{side}.raw.{what}" for side in ("orig", "reply") for what in ("pktlen", "pktcount"))
TIMES = tuple(f"flow.{edge}.{part}" for edge in ("start", "end") for part in ("sec", "usec")) + (
    "flowStartMilliseconds", "flowEndMilliseconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl below net.netfilter whose value `bad` means `what`; `keys`: what is affected, () for every row."""

    name: str
    bad: str
    what: str
    keys: tuple[str, ...] = ()
    of_events: bool = False

    @property
    def remedy(self) -> str:
        return f"net.netfilter.{self.name}=1"


SETTINGS = (
    Setting("nf_conntrack_acct", "0", "packets and octets are not counted", COUNTERS),
    Setting("nf_conntrack_timestamp", "0", "start times are not kept", TIMES),
    Setting("nf_conntrack_events", "0", "no events are sent at all", of_events=True),
    Setting("nf_conntrack_events", "2", "flows older than the service end without an event, so they are "
            "noticed later and without an end time", of_events=True),
)  # fmt: skip


def loaded() -> bool:
    """Whether connection tracking is there at all."""
    return (SYSCTLS / "nf_conntrack_acct").exists()


def read(name: str) -> str:
    """The setting, empty where it cannot be read (a container may hide it)."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError:
        return ""


def wrong(wanted: Wanted = ALL, events: bool = True) -> list[Setting]:
    """The settings that take away something of the `wanted` keys."""
    return [
        setting
        for setting in SETTINGS
        if (events or not setting.of_events)
        and (not setting.keys or any(key in wanted for key in setting.keys))
        and read(setting.name) == setting.bad
    ]


def mend(setting: Setting) -> None:
    """Set it. Raises OSError."""
    (SYSCTLS / setting.name).write_text("1\n")
