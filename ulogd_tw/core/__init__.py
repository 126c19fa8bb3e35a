"""Keys, batches, plugins and stacks: what every other part stands on. No Twisted, no socket, no clock."""
