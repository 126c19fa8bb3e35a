"""The Metering Process (RFC 7011 section 2): flows made of packets, and flows measured by the kernel.

Packets go in and flow records come out of `flow_table`, the table of FLOWCACHE, with `flow_layout` for the form of its
rows and `flow_ends` for the rules that end a flow. `conntrack_dumps` reads the kernel's table of connections for NFCT,
and `conntrack_settings` checks the kernel's settings. `capture_rows` replays the packets of captures, `demo_traffic`
invents flows. Import the modules themselves: those about the kernel load Twisted, the others do not.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
