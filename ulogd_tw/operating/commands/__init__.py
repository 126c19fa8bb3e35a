"""The commands of ``ulogd-tw``: one tree of arguments, and a module for each group of commands.

`tree` declares every command with its arguments, and loads a command's module at its first use. A module has a function
for each of its commands: it takes the read arguments and a file for the output, and gives the exit status. `service`
asks the running service by HTTP over its control socket.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
