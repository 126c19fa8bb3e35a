"""Names for addresses, ports, interfaces and marks, from files: networks, services, countries, autonomous systems.

Octets of a file go in; a table comes out. `codes` of a table gives a number for each value of a column, 0 for none, and
its labels give the name or number behind each code. No file is opened here. `NamesError` names the line of a mistake.
`maxmind`, `networks`, `numbers`, `services` and `systems` read one kind of file each. Import the modules themselves.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
