"""PGSQL beside ulogd2's, on the same traffic, with the schema, the view and the functions of Debian's package."""

import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live import stock
from tests.live.service import temporary
from tests.postgresql import PrivatePostgreSQL
from tests.support import Daemon, NetworkNamespaces, require_program, wait_until

CONFIGURATION = """
[global]
logfile="{folder}/log"
loglevel=3
plugin="{plugins}/ulogd_inppkt_NFLOG.so"
plugin="{plugins}/ulogd_inpflow_NFCT.so"
plugin="{plugins}/ulogd_filter_IFINDEX.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_filter_HWHDR.so"
plugin="{plugins}/ulogd_raw2packet_BASE.so"
plugin="{plugins}/ulogd_output_PGSQL.so"
stack=log2:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,mac2str1:HWHDR,pgsql1:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql2:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql3:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql4:PGSQL
[log2]
group=1
[ct1]
hash_enable=1
accept_proto_filter=udp,icmp
[pgsql1]
table="ulog"
procedure="INSERT_PACKET_FULL"
{where}
[pgsql2]
table="ulog2_ct"
procedure="INSERT_CT"
{where}
[pgsql3]
table="flat"
procedure="INSERT"
backlog_memcap=1000000
{where}
[pgsql4]
table="flat"
procedure="INSERT INTO public.flat"
ring_buffer_size=1000
connstring="{connstring}"
db="nulog"
user="nupik"
"""
PLUGINS = "/usr/lib/x86_64-linux-gnu/ulogd"
PACKETS = """
SELECT oob_hook, oob_prefix, oob_mark, oob_in, oob_out, oob_family, ip_saddr_str, ip_daddr_str, ip_protocol, ip_tos,
  ip_ttl, ip_totlen, ip_ihl, ip_fragoff, ip6_payloadlen, ip6_priority, ip6_hoplimit, udp_sport, udp_dport, udp_len,
  icmp_type, icmp_code, icmp_echoseq, icmpv6_type, icmpv6_code, icmpv6_echoseq, raw_type, mac_str, mac_saddr_str,
  mac_daddr_str, oob_protocol, raw_label
FROM ulog WHERE ip_protocol IN (1, 17) ORDER BY ulog::text
"""
FLOWS = """
SELECT oob_family, orig_ip_saddr_str, orig_ip_daddr_str, orig_ip_protocol, orig_l4_sport, orig_l4_dport,
  orig_raw_pktlen, orig_raw_pktcount, reply_ip_saddr_str, reply_ip_daddr_str, reply_ip_protocol,
  reply_l4_sport, reply_l4_dport,
  reply_raw_pktlen, reply_raw_pktcount, icmp_code, icmp_type, ct_mark, flow_end_sec - flow_start_sec < 60, ct_event
FROM ulog2_ct WHERE orig_ip_protocol IN (1, 17) ORDER BY ulog2_ct::text
"""
FLAT = """
SELECT orig_ip_saddr_str, orig_ip_daddr_str, orig_ip_protocol, orig_l4_sport, orig_raw_pktlen, orig_raw_pktcount,
  flow_start_sec > 0 FROM flat WHERE orig_ip_protocol IN (1, 17)
"""


class StockTests(SynchronousTestCase):
    """ulogd2 first, then ulogd_tw."""

    def test_same_rows(self):
        """The same rows of packets and flows, by functions, plain inserts and statements of one's own."""
        require_program("ulogd", "conntrack", "ping", "nft")
        if not Path(PLUGINS, "ulogd_output_PGSQL.so").exists():
            require_program("ulogd2-pgsql")
        with PrivatePostgreSQL() as server, NetworkNamespaces(conntrack=True) as spaces:
            spaces.run("a", ["nft", "-f", "-"], input=stock.RULES)
            theirs = self.run_program(server, spaces, "ulogd")
            ours = self.run_program(server, spaces, "ulogd-tw")
        for table in (PACKETS, FLOWS, FLAT):
            self.assertGreaterEqual(len(ours[table]), 3)
            self.assertEqual(theirs[table], ours[table])

    def run_program(self, server, spaces, program):
        """The rows that the program stores of some traffic."""
        database = f"nulog{len(program)}"
        stock.pgsql_schema(server, database)
        folder = temporary("pgsql")
        where = f'db="{database}"\nhost="{server.folder}"\nport={server.port}\nuser="nupik"\npass="changeme"'
        connstring = f"host={server.folder} port={server.port} dbname={database} user=nupik"
        text = CONFIGURATION.format(folder=folder, plugins=PLUGINS, where=where, connstring=connstring)
        (folder / "ulogd.conf").write_text(text)
        words = [program] if program == "ulogd" else [Path(sys.executable).with_name(program)]
        log = folder / "log"

        def ready(daemon):
            told = daemon.output() + (log.read_text() if log.exists() else "")
            return re.search("initialization finished|stacks run", told)

        with Daemon(spaces.argv("a", [*words, "-c", folder / "ulogd.conf"]), ready, within=20):
            stock.make_traffic(spaces, sys.executable)
            count = "SELECT (SELECT count(*) FROM ulog2_ct), (SELECT count(*) FROM flat), (SELECT count(*) FROM ulog)"
            try:
                wait_until(
                    lambda: all(map(int.__ge__, server.execute(count, dbname=database)[0], (3, 6, 10))), 10, "rows"
                )
            except AssertionError as late:
                raise AssertionError(
                    f"{late}: {server.execute(count, dbname=database)}; {log.read_text()[-3000:]}"
                ) from None
        return {table: self.sorted(server.execute(table, dbname=database)) for table in (PACKETS, FLOWS, FLAT)}

    @staticmethod
    def sorted(rows):
        return sorted(rows, key=str)
