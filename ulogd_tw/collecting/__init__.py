"""The Collecting Process (RFC 7011 section 2): what COLLECTOR, PCAPIN and IPFIXFILE have in common.

In come Messages: datagrams and streams of peers through the listeners of `ulogd_tw.transports`, captures, and IPFIX
files. They are given to the decoders of `ulogd_tw.ipfix`, each by its Transport Session. Out go batches of Flow Records
and options records. `Reception` keeps the sessions of live peers, `Replaying` goes through files, `TemplateCache` keeps
templates over a restart.
"""

from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.reception import Reception
from ulogd_tw.collecting.replay import Replaying
from ulogd_tw.collecting.template_cache import TemplateCache

__all__ = ["Collecting", "Reception", "Replaying", "TemplateCache"]
