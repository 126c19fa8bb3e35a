"""The request to ctnetlink for its table: the type, the flags and the payload of one netlink message.

The transport adds the netlink header with the sequence number. ctnetlink ignores unknown attributes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ulogd_tw.netfilter.ctnetlink import MSG_GET, MSG_GET_CTRZERO, SUBSYSTEM

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300


@dataclass(frozen=True, slots=True)
class Request:
    """A netlink message without its header."""

    kind: int
    flags: int
    payload: bytes

    @property
    def dumps(self) -> bool:
        """True if the answer is many messages and NLMSG_DONE; else it is one message and an acknowledgement."""
        return self.flags & NLM_F_DUMP == NLM_F_DUMP


def dump(family: int = 0, zero: bool = False) -> Request:
    """Request for all entries, of one family or of all (0); with `zero` their counters are set to 0 when read."""
    # struct nfgenmsg: family, version NFNETLINK_V0, resource id.
    message = MSG_GET_CTRZERO if zero else MSG_GET
    return Request(SUBSYSTEM << 8 | message, NLM_F_REQUEST | NLM_F_DUMP, struct.pack(">BBH", family, 0, 0))
