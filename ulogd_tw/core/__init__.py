"""Keys, batches, plugins and stacks, the ground for all other packages. No Twisted, no socket, no clock.

A `batch.Batch` holds rows column by column; `columns`, `text` and `lines` work on whole columns. `keys` has the names,
types and Information Elements of all keys, `resolve` and `conversions` find a requested key among those given. `plugin`
has the base classes of plugins, `options` and `counters` their declarations, and `stack` builds the instances of a
configuration and connects them. Import the modules themselves: most callers need one or two.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
