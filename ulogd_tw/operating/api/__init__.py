"""The HTTP API of the running service: `/metrics`, `/livez`, `/readyz` and `/api/v1/`, as resources of twisted.web.

`view` is what the resources see of the service, `pages` are the resources, `tree` puts them together. A door serves
the tree: `control_socket` on a Unix socket. Input: requests of clients; output: JSON, and text for Prometheus. Nothing
here is loaded unless a door is configured.
"""

import os

__all__ = sorted(name.removesuffix(".py") for name in os.listdir(__path__[0]) if name[0] != "_" and name[-3:] == ".py")
