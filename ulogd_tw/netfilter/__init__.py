"""Codecs of netfilter's netlink messages: the kernel's octets become batches, requests become octets. No sockets.

`conntrack` and `nflog_decoder` decode the events of connection tracking and logged packets by column, through `layout`:
messages of the same layout are decoded together. `followed_flows` keeps the flows alive in the kernel, to notice ends
without an event. `flow_filter` selects flows, and `bpf` turns the selection into a program for the kernel. `requests`,
`nflog` and `nfacct` write requests. Import the modules themselves: each input needs one kind of message.
"""

__all__ = [
    "attributes",
    "bpf",
    "conntrack",
    "counts",
    "ctnetlink",
    "flow_filter",
    "followed_flows",
    "grammar",
    "layout",
    "nfacct",
    "nflog",
    "nflog_decoder",
    "requests",
    "values",
]
