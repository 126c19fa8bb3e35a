"""Codecs of packets: octets as they were on a wire become columns."""
