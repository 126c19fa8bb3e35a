"""Keys, batches, plugins and stacks, the ground for all other packages. No Twisted, no socket, no clock."""
