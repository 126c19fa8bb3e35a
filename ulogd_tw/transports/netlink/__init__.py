"""Netlink sockets on the reactor."""
