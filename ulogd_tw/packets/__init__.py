"""Codecs of packets: octets from a wire become columns, and packets become octets of capture files. No sockets.

`headers.decode` reads the headers of many packets in step, layer by layer, and gives columns for each family of
addresses; `tunnels` finds the packets inside tunnels. `capture` reads pcap and pcapng files and `writing` writes them.
`payloads` and `reassembly` take datagrams and streams out of captured packets. Import the modules themselves.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
