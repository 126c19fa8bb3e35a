"""Tools for the operator, on top of the running service and of its declarations.

`inspection` and `manhole` show live stacks, counters and passing rows over ssh. `query` and `sql` answer SQL over the
tables of aggregates, and `ask` is the other end: the commands ``query`` and ``top``. `doctor` checks a machine against
a configuration, `metrics` writes counters to a file, `api` answers HTTP with `prometheus`, `events` and `silence`,
`reference` makes docs/reference.md. Each is loaded at its first use, so import the modules themselves.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
