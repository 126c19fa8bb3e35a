"""The Exporting Process (RFC 7011 section 2): what the outputs IPFIX and IPFIXFILE have in common.

In come batches of rows. `FlowRecords` makes Data Records of them, `Routing` chooses the collectors, `Distribution`
fills Messages, and each `Collector` sends its own over one Transport Session after the other. Out go Messages to
senders of `ulogd_tw.transports`, and to spools where a collector is away.
"""

from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.distribution import Distribution
from ulogd_tw.exporting.flow_records import FlowRecords
from ulogd_tw.exporting.routing import Routing
from ulogd_tw.exporting.settings import Settings

__all__ = ["Collector", "Distribution", "FlowRecords", "Routing", "Settings"]
