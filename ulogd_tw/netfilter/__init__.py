"""Codecs of netfilter's netlink messages (nfnetlink): octets to batches, requests to octets."""
