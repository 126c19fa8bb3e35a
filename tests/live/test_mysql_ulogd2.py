"""MYSQL beside ulogd2's, on the same traffic, with the schema, the views and the functions of Debian's package."""

import re
import sys
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live import stock
from tests.live.service import temporary
from tests.support import Daemon, NetworkNamespaces, PrivateMariaDB, require_program, wait_until

CONFIGURATION = """
[global]
logfile="{folder}/log"
loglevel=3
plugin="{plugins}/ulogd_inppkt_NFLOG.so"
plugin="{plugins}/ulogd_inpflow_NFCT.so"
plugin="{plugins}/ulogd_filter_IFINDEX.so"
plugin="{plugins}/ulogd_filter_IP2BIN.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_filter_HWHDR.so"
plugin="{plugins}/ulogd_raw2packet_BASE.so"
plugin="{plugins}/ulogd_output_MYSQL.so"
stack=log2:NFLOG,base1:BASE,ifi1:IFINDEX,ip2bin1:IP2BIN,mac2str1:HWHDR,mysql0:MYSQL
stack=ct1:NFCT,ip2bin1:IP2BIN,mysql1:MYSQL
stack=ct1:NFCT,ip2str1:IP2STR,mysql2:MYSQL
stack=ct1:NFCT,ip2str1:IP2STR,mysql3:MYSQL
[log2]
group=1
[ct1]
hash_enable=1
accept_proto_filter=udp,icmp
[mysql0]
table="ulog"
procedure="INSERT_PACKET_FULL"
{where}
[mysql1]
table="conntrack"
procedure="INSERT_CT"
{where}
[mysql2]
table="flat"
procedure="INSERT"
{where}
[mysql3]
table="flat2"
procedure="INSERT"
ring_buffer_size=1000
{where}
"""
PLUGINS = "/usr/lib/x86_64-linux-gnu/ulogd"
FLAT = """(id INT AUTO_INCREMENT PRIMARY KEY, orig_ip_saddr_str VARCHAR(45), orig_ip_daddr_str VARCHAR(45),
orig_ip_protocol TINYINT UNSIGNED, orig_l4_sport SMALLINT UNSIGNED, orig_l4_dport SMALLINT UNSIGNED,
orig_raw_pktlen BIGINT, orig_raw_pktcount BIGINT, reply_raw_pktlen BIGINT, reply_raw_pktcount BIGINT,
flow_start_sec INT UNSIGNED, flow_end_sec INT UNSIGNED)"""
"""The columns of ulogd2's statements in the golden configuration, behind a number of the database."""
PACKETS = """
SELECT oob_hook, oob_prefix, oob_mark, oob_in, oob_out, oob_family, ip_saddr_bin, ip_daddr_bin, ip_protocol, ip_tos,
  ip_ttl, ip_totlen, ip_ihl, ip_fragoff, ip6_payloadlen, ip6_priority, ip6_hoplimit, udp_sport, udp_dport, udp_len,
  icmp_type, icmp_code, icmp_echoseq, icmpv6_type, icmpv6_code, icmpv6_echoseq, raw_type, mac_str, mac_saddr_str,
  mac_daddr_str, oob_protocol, raw_label
FROM {db}.ulog WHERE ip_protocol IN (1, 17)
"""
FLOWS = """
SELECT oob_family, orig_ip_saddr, orig_ip_daddr, orig_ip_protocol, orig_l4_sport, orig_l4_dport, orig_bytes,
  orig_packets, reply_ip_saddr, reply_ip_protocol, reply_l4_sport, reply_l4_dport, reply_bytes, reply_packets,
  icmp_code, icmp_type, ct_mark, flow_end_sec - flow_start_sec < 60, state
FROM {db}.ulog2_ct WHERE orig_ip_protocol IN (1, 17)
"""
"""Without reply_ip_daddr: IP2BIN of ulogd2 never fills its last key, so that it has NULL there."""
ROWS = """
SELECT orig_ip_saddr_str, orig_ip_daddr_str, orig_ip_protocol, orig_l4_sport, orig_l4_dport, orig_raw_pktlen,
  orig_raw_pktcount, reply_raw_pktlen, reply_raw_pktcount, flow_start_sec > 0, flow_end_sec >= flow_start_sec
FROM {db}.TABLE WHERE orig_ip_protocol IN (1, 17)
"""
QUERIES = {
    "packets": PACKETS,
    "flows": FLOWS,
    **{table: ROWS.replace("TABLE", table) for table in ("flat", "flat2")},
}


class StockTests(SynchronousTestCase):
    """ulogd2 first, then ulogd_tw."""

    def test_same_rows(self):
        """The same rows of packets and flows, by functions and plain inserts."""
        require_program("ulogd", "conntrack", "ping", "nft", "mariadb")
        if not Path(PLUGINS, "ulogd_output_MYSQL.so").exists():
            require_program("ulogd2-mysql")
        with PrivateMariaDB() as server, NetworkNamespaces(conntrack=True) as spaces:
            spaces.run("a", ["nft", "-f", "-"], input=stock.RULES)
            theirs = self.run_program(server, spaces, "ulogd")
            ours = self.run_program(server, spaces, "ulogd-tw")
            inside = ip_address("::ffff:" + spaces.ipv4["a"]).packed
            found = server.execute(
                "SELECT DISTINCT reply_ip_daddr FROM nulog8.ulog2_ct WHERE orig_ip_saddr = %s", inside
            )
        for name in QUERIES:
            self.assertGreaterEqual(len(ours[name]), 2, name)
            self.assertEqual(theirs[name], ours[name], name)
        self.assertEqual(found, [(inside,)])  # what theirs lacks

    def run_program(self, server, spaces, program):
        """The rows that the program stores of some traffic."""
        database = f"nulog{len(program)}"
        stock.mysql_schema(server, database)
        for table in ("flat", "flat2"):
            server.execute(f"CREATE TABLE {database}.{table} {FLAT}")
        folder = temporary("mysql")
        theirs = program == "ulogd"
        where = f'db="{database}"\nuser="nupik"\npass="changeme"\n'
        where += 'host="localhost"' if theirs else f'socket="{server.socket}"'
        (folder / "ulogd.conf").write_text(CONFIGURATION.format(folder=folder, plugins=PLUGINS, where=where))
        words = (
            ["env", f"MYSQL_UNIX_PORT={server.socket}", program]
            if theirs
            else [Path(sys.executable).with_name(program)]
        )
        log = folder / "log"

        def ready(daemon):
            told = daemon.output() + (log.read_text() if log.exists() else "")
            return re.search("initialization finished|stacks run", told)

        counts = ", ".join(f"(SELECT COUNT(*) FROM {database}.{t})" for t in ("ulog2_ct", "flat", "flat2", "ulog2"))
        with Daemon(spaces.argv("a", [*words, "-c", folder / "ulogd.conf"]), ready, within=20):
            stock.make_traffic(spaces, sys.executable)
            try:
                wait_until(
                    lambda: all(map(int.__ge__, server.execute(f"SELECT {counts}")[0], (3, 3, 3, 6))), 10, "rows"
                )
            except AssertionError as late:
                told = log.read_text()[-3000:]
                raise AssertionError(f"{late}: {server.execute(f'SELECT {counts}')}; {told}") from None
        return {name: sorted(server.execute(query.format(db=database)), key=str) for name, query in QUERIES.items()}
