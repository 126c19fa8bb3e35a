"""The other ends of IPFIX: which transports there are, and who is at the end of each.

`TRANSPORTS` is the one table of schemes. An entry joins a `Listener` to the Collecting Process and a `Sender` to the
Exporting Process (`ulogd_tw.collecting`, `ulogd_tw.exporting`), with the options and checks of both. In come URLs and
options as users write them; out go listeners, and collectors to export to. A transport more is a module here with a
subclass of `Transport`, and a line in `table`.
"""

from ulogd_tw.peers.table import SCHEMES, TRANSPORTS, options_of, parse
from ulogd_tw.peers.target import Target
from ulogd_tw.peers.transport import Availability, Entrance, Transport

__all__ = ["SCHEMES", "TRANSPORTS", "Availability", "Entrance", "Target", "Transport", "options_of", "parse"]
