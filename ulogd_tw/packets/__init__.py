"""Codecs of packets: octets from a wire become columns."""
