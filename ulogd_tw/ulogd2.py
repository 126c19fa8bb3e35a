"""Names from configurations of ulogd2 (2.0.8): plugins, shared objects, integer options."""

from __future__ import annotations

PLUGINS = {
    "BASE": "raw2packet", "DBI": "output", "GPRINT": "output", "GRAPHITE": "output", "HWHDR": "filter",
    "IFINDEX": "filter", "IP2BIN": "filter", "IP2HBIN": "filter", "IP2STR": "filter", "IPFIX": "output",
    "JSON": "output", "LOGEMU": "output", "MARK": "filter", "MYSQL": "output", "NACCT": "output", "NFACCT": "inpflow",
    "NFCT": "inpflow", "NFLOG": "inppkt", "OPRINT": "output", "PCAP": "output", "PGSQL": "output",
    "PRINTFLOW": "filter", "PRINTPKT": "filter", "PWSNIFF": "filter", "SQLITE3": "output", "SYSLOG": "output",
    "ULOG": "inppkt", "UNIXSOCK": "inppkt", "XML": "output",
}  # fmt: skip
"""ulogd2's plugins, and the word for their kind in the names of their shared objects."""

SHARED_OBJECTS = frozenset(f"ulogd_{kind}_{name}.so" for name, kind in PLUGINS.items())

_SQL = "reconnect connect_timeout backlog_memcap backlog_oneshot_requests ring_buffer_size port"
_NETLINK = "netlink_socket_buffer_size netlink_socket_buffer_maxsize"
INTEGERS = {
    "[global]": "loglevel",
    "DBI": _SQL, "MYSQL": _SQL, "PGSQL": _SQL,
    "GPRINT": "sync timestamp", "JSON": "sync timestamp eventv1 boolean_label", "LOGEMU": "sync", "NACCT": "sync",
    "OPRINT": "sync", "PCAP": "sync", "XML": "sync stdout", "IPFIX": "oid port mtu", "MARK": "mark mask",
    "NFACCT": "pollinterval zerocounter timestamp",
    "NFCT": "pollinterval hash_enable hash_buckets hash_max_entries event_mask netlink_resync_timeout reliable "
            f"{_NETLINK}",
    "NFLOG": "bufsize group unbind bind seq_local seq_global numeric_label netlink_qthreshold netlink_qtimeout "
             f"attach_conntrack {_NETLINK}",
    "ULOG": "bufsize nlgroup rmem numeric_label", "UNIXSOCK": "bufsize perms",
}  # fmt: skip
"""ulogd2's integer options. It read them with strtoul, so garbage gave 0."""
