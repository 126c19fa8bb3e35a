"""Codecs of netfilter's netlink messages: the kernel's octets become batches, requests become octets. No sockets.

`conntrack` and `nflog_decoder` decode the events of connection tracking and logged packets by column, through `layout`:
messages of the same layout are decoded together. `followed_flows` keeps the flows alive in the kernel, to notice ends
without an event. `flow_filter` selects flows, and `bpf` turns the selection into a program for the kernel. `requests`,
`nflog` and `nfacct` write requests. Import the modules themselves: each input needs one kind of message.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
