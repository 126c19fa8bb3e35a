"""The Collecting Process (RFC 7011 section 2): what COLLECTOR, PCAPIN and IPFIXFILE have in common.

In come Messages: datagrams and streams of peers through the listeners of `ulogd_tw.transports`, captures, and IPFIX
files. They are given to the decoders of `ulogd_tw.ipfix`, each by its Transport Session. Out go batches of Flow Records
and options records. `reception` keeps the sessions of live peers, `replay` goes through files, `template_cache` keeps
templates over a restart. Import the modules themselves: live peers need others than files.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
