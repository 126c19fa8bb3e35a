"""ICMP and ICMPv6: the types of queries and their answers."""

ICMP_PAIRS = {4: ((8, 0), (13, 14), (15, 16), (17, 18)), 6: ((128, 129), (139, 140))}
"""By IP version, pairs of the types of a query and its answer.

Linux: nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c; no other types have an answer.
"""
