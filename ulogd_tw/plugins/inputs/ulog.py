"""ULOG: configurations for the kernel's former ULOG target, served through NFLOG."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.options import Option, number, octets
from ulogd_tw.netfilter.nflog_decoder import KEYS
from ulogd_tw.plugins.inputs.nflog import NFLOG, TUNING
from ulogd_tw.transports.netlink import buffers

_INTERFACES = dict(zip(("oob.ifindex_in", "oob.ifindex_out"), ulogd_keys("oob.in", "oob.out"), strict=True))
_NOT_THERE = {"oob.seq.local", "oob.seq.global", "oob.uid", "oob.gid", "raw.type", "raw.mac.saddr", "raw.mac.addrlen",
              "dot1qVlanId", "dot1qPriority"}  # fmt: skip


class ULOG(NFLOG):
    """Reads packets for old ULOG configurations, from the NFLOG group with the number of the ULOG group.

    Linux has no ULOG since 3.17: replace ``-j ULOG --ulog-nlgroup N`` by ``-j NFLOG --nflog-group N`` in the rules. The
    keys are those of ulogd2's ULOG, with the names of interfaces.
    """

    name = "ULOG"
    provides = tuple(_INTERFACES.get(key.name, key) for key in KEYS if key.name not in _NOT_THERE)
    hidden = frozenset()
    options = (
        Option("nlgroup", number, 32, "Number of the NFLOG group to read: the ULOG group of the old configuration."),
        Option("numeric_label", number, 0, "Value of the key raw.label, 0 to 255."),
        Option(
            "rmem",
            octets,
            131071,
            "Raises the default of receive_buffer to at least this many octets (an option of ulogd2).",
        ),
        Option(
            "bufsize",
            number,
            150000,
            "No effect; accepted for configurations of ulogd2. Datagrams of all sizes are read.",
        ),
        *TUNING,
    )

    def groups(self) -> tuple[int, ...]:
        return (self.config.nlgroup,)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not 1 <= self.config.nlgroup <= 32:
            yield "nlgroup", f"{self.config.nlgroup} is not a group of ULOG (1 to 32)"
        yield from super().mistakes()

    def keys(self) -> Iterable[Key]:
        return self.provides

    def decoded(self) -> frozenset[str]:
        """The keys to decode: numbers of interfaces for wanted names."""
        wanted = {key.name for key in self.provides if key.name in self.wanted}
        return frozenset(wanted | {index for index, key in _INTERFACES.items() if key.name in wanted})

    def buffer_octets(self) -> int:
        """The limit of the kernel's queue, by the options."""
        return buffers.limit(self.config.receive_buffer, self.config.rmem)

    def system_logging(self) -> bool:
        return False

    def open(self) -> None:
        super().open()
        group = self.config.nlgroup
        self.log.warn(
            "{instance}: Linux no longer has ULOG, so NFLOG group {group} is read; change the rules from "
            "'-j ULOG --ulog-nlgroup {group} --ulog-prefix P --ulog-cprange C --ulog-qthreshold Q' to "
            "'-j NFLOG --nflog-group {group} --nflog-prefix P --nflog-size C --nflog-threshold Q', and the stack from "
            "ULOG to NFLOG with group={group} and IFINDEX", instance=self.instance, group=group,
        )  # fmt: skip

    def finished(self, batch: Batch) -> Batch:
        """The batch with names of interfaces instead of numbers; an unknown interface has an empty name."""
        keys, columns, missing = [], dict(batch.columns), dict(batch.missing)
        for name in self._order(batch):
            key = _INTERFACES.get(name)
            if key is None:
                keys.append(batch.schema[name])
            elif key.name in self.wanted:
                keys.append(key)
                columns[key.name] = _names(batch.columns.get(name), missing.pop(name, None), batch.n)
        return Batch(Schema(keys), {k.name: columns[k.name] for k in keys}, missing, n=batch.n, now=batch.now)

    def _order(self, batch: Batch) -> Iterator[str]:
        """The keys of a row in ulogd2's order: both interfaces are always there."""
        return (key.name for key in KEYS if key.name in batch.schema or key.name in _INTERFACES)


def _names(numbers: np.ndarray | None, missing: np.ndarray | None, n: int) -> Coded:
    """The names of interfaces; the kernel is asked for each different number in a batch, since names can change."""
    if numbers is None:
        return Coded(np.broadcast_to(np.int32(0), n), (b"",))
    numbers = numbers if missing is None else np.where(missing, np.uint32(0), numbers)
    different, codes = np.unique(numbers, return_inverse=True)
    return Coded(codes, tuple(_name(index) for index in different.tolist()))


def _name(index: int) -> bytes:
    try:
        return socket.if_indextoname(index).encode() if index else b""
    except OSError:
        return b""
