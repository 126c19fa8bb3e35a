"""Sockets under Twisted: octets and peers, no meaning."""
