"""Names for addresses, ports, interfaces and marks, from files: networks, services, countries, autonomous systems.

Octets of a file go in; a table comes out. `codes` of a table gives a number for each value of a column, 0 for none, and
its labels give the name or number behind each code. No file is opened here. `NamesError` names the line of a mistake.
`maxmind`, `networks`, `numbers`, `services` and `systems` read one kind of file each.
"""

from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Labels
from ulogd_tw.naming.networks import Names
from ulogd_tw.naming.numbers import Interfaces, Marks
from ulogd_tw.naming.services import Services

__all__ = ["Interfaces", "Labels", "Marks", "Names", "NamesError", "Services"]
