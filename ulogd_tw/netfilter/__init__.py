"""Netfilter netlink messages (nfnetlink, ctnetlink): octets to batches, requests to octets."""
