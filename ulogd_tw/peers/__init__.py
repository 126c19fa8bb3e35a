"""The ends of IPFIX: the table of transports, each joined to the Collecting and the Exporting Process.

`TRANSPORTS` is the one table of schemes. An entry joins a `Listener` to the Collecting Process and a `Sender` to the
Exporting Process (`ulogd_tw.collecting`, `ulogd_tw.exporting`), with the options and checks of both. URLs and options
go in as users write them; listeners and collectors come out. A new transport is a module here with a subclass of
`Transport`, and a line in `table`.
"""

from ulogd_tw.peers.table import SCHEMES, TRANSPORTS, options_of, parse
from ulogd_tw.peers.target import Target
from ulogd_tw.peers.transport import Availability, Entrance, Transport

__all__ = ["SCHEMES", "TRANSPORTS", "Availability", "Entrance", "Target", "Transport", "options_of", "parse"]
