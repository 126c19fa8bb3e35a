"""Filters conntrack events in the kernel: an `Accept` as a program of classic BPF for the netlink socket.

The kernel runs it on each event before queueing it, so a filtered event costs neither room in the queue nor a wake-up.
Attributes have no fixed place; they are found by the kernel's own search (SKF_AD_NLATTR, net/core/filter.c).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ulogd_tw.core.networks import Network
from ulogd_tw.netfilter.ctnetlink import HEADERS, IPV4, IPV6
from ulogd_tw.netfilter.flow_filter import Accept

MOST = 4096
"""BPF_MAXINSNS: a longer program is refused."""

_LD_W_ABS, _LD_B_ABS, _LD_W_IND, _LD_B_IND = 0x20, 0x30, 0x40, 0x50
_LD_IMM, _LDX_MEM, _LD_MEM, _ST, _TAX, _RET = 0x00, 0x61, 0x60, 0x02, 0x07, 0x06
_LDX_IMM, _AND, _JEQ, _JA = 0x01, 0x54, 0x15, 0x05
_NLATTR, _NLATTR_NEST = 0xFFFFF000 + 12, 0xFFFFF000 + 16
"""SKF_AD_OFF + SKF_AD_NLATTR: the attribute X from octet A on; _NEST: inside the attribute at octet A. 0: none."""
_FAMILY = 16
"""Octet of nfgen_family."""
_ORIG, _IP, _PROTO, _PROTO_NUM = 1, 1, 2, 1
"""CTA_TUPLE_ORIG, CTA_TUPLE_IP, CTA_TUPLE_PROTO, CTA_PROTO_NUM."""
_ADDRESSES = {("orig.ip.saddr", IPV4): 1, ("orig.ip.daddr", IPV4): 2,
              ("orig.ip.saddr", IPV6): 3, ("orig.ip.daddr", IPV6): 4}  # fmt: skip
_ALL = 0xFFFFFFFF

Step = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant. A jump counts the steps skipped."""


def program(accept: Accept) -> bytes | None:
    """The program (struct sock_filter, one after another), or None if there is nothing to filter or it is too long."""
    if not accept.keys:
        return None
    steps = _protocols(accept.protocols) if accept.protocols else []
    if accept.sides:
        four, six = (_addresses(accept, family) for family in (IPV4, IPV6))
        # A long jump only goes forward, by a 32-bit count.
        steps += [(_LD_B_ABS, 0, 0, _FAMILY), (_JEQ, 1, 0, IPV4), (_JA, 0, 0, len(four)), *four, *six]
    steps.append((_RET, 0, 0, _ALL))
    return b"".join(struct.pack("=HBBI", *step) for step in steps) if len(steps) <= MOST else None


def _find(*path: int) -> list[Step]:
    """Sets A and X to the place of an attribute inside the original tuple; a message without it is left out."""
    steps: list[Step] = [(_LD_IMM, 0, 0, HEADERS), (_LDX_IMM, 0, 0, _ORIG), (_LD_W_ABS, 0, 0, _NLATTR), *_none()]
    for kind in path:
        steps += [(_LDX_IMM, 0, 0, kind), (_LD_W_ABS, 0, 0, _NLATTR_NEST), *_none()]
    return [*steps, (_TAX, 0, 0, 0)]


def _none() -> list[Step]:
    """Leave the message out where A is 0."""
    return [(_JEQ, 0, 1, 0), (_RET, 0, 0, 0)]


def _protocols(numbers: Sequence[int]) -> list[Step]:
    steps = [*_find(_PROTO, _PROTO_NUM), (_LD_B_IND, 0, 0, 4)]
    # At most 256, each a test and a long jump over the rest.
    tests: list[Step] = []
    for place, number in enumerate(numbers):
        tests += [(_JEQ, 0, 1, number), (_JA, 0, 0, 2 * (len(numbers) - place) - 1)]
    return [*steps, *tests, (_RET, 0, 0, 0)]


def _addresses(accept: Accept, family: int) -> list[Step]:
    """The tests of one family; the other family's follow, so each branch must end by itself."""
    steps: list[Step] = []
    for name, listed in accept.sides:
        version = 4 if family == IPV4 else 6
        tests = _one_of([network for network in listed if network.version == version])
        steps += [*_find(_IP, _ADDRESSES[name, family]), *_load(4 if version == 4 else 16), *tests]
    return [*steps, (_RET, 0, 0, _ALL)]


def _load(octets: int) -> list[Step]:
    """Put the words of the address at X into the scratch memory."""
    return [step for word in range(octets // 4) for step in ((_LD_W_IND, 0, 0, 4 + 4 * word), (_ST, 0, 0, word))]


def _one_of(networks: Sequence[Network]) -> list[Step]:
    """Go on after the last step if the address is in one of these networks, else leave the message out."""
    parts = [_within(network) for network in networks]
    total = sum(len(part) + 1 for part in parts) + 1
    steps: list[Step] = []
    for part in parts:
        steps += part
        steps.append((_JA, 0, 0, total - len(steps) - 1))
    return [*steps, (_RET, 0, 0, 0)]


def _within(network: Network) -> list[Step]:
    """Skip one step (the jump away) if the address is not in the network."""
    size = network.max_prefixlen // 32
    address, mask = network.network_address.packed, network.netmask.packed
    words = [(word, *struct.unpack_from(">I", mask, 4 * word), *struct.unpack_from(">I", address, 4 * word))
             for word in range(size)]  # fmt: skip
    words = [word for word in words if word[1]]
    steps: list[Step] = []
    for place, (word, bits, value) in enumerate(words):
        # Each word is three steps: out of this one to behind the jump, over the words that are left.
        steps += [(_LD_MEM, 0, 0, word), (_AND, 0, 0, bits), (_JEQ, 0, 3 * (len(words) - place - 1) + 1, value)]
    return steps
