"""The Exporting Process (RFC 7011 section 2): what the outputs IPFIX and IPFIXFILE have in common.

In come batches of rows. `flow_records` makes Data Records of them, `routing` chooses the collectors, `distribution`
fills Messages, and each `collector` sends its own over one Transport Session after the other. Out go Messages to
senders of `ulogd_tw.transports`, and to spools where a collector is away. Import the modules themselves.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
