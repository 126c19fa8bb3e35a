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
plugin="{plugins}/ulogd_inpflow_NFACCT.so"
plugin="{plugins}/ulogd_filter_IFINDEX.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_filter_HWHDR.so"
plugin="{plugins}/ulogd_raw2packet_BASE.so"
plugin="{plugins}/ulogd_output_PGSQL.so"
stack=log2:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,mac2str1:HWHDR,pgsql1:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql2:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql3:PGSQL
stack=ct1:NFCT,ip2str1:IP2STR,pgsql4:PGSQL
stack=ct2:NFCT,ip2str1:IP2STR,pgsql5:PGSQL
stack=acct1:NFACCT,pgsql6:PGSQL
[log2]
group=1
[ct1]
hash_enable=1
accept_proto_filter=udp,icmp
[ct2]
hash_enable=0
accept_proto_filter=udp,icmp
[acct1]
pollinterval=1
timestamp=1
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
[pgsql5]
table="ulog2_ct"
procedure="INSERT_OR_REPLACE_CT"
{replacing}
[pgsql6]
table="nfacct"
procedure="INSERT_NFACCT"
{where}
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
COUNTING = "iptables -A OUTPUT -p icmp --icmp-type echo-request -m nfacct --nfacct-name pings".split()
REPLACED = FLOWS.replace("flow_end_sec - flow_start_sec < 60", "flow_end_sec > 0")
ACCOUNTS = """
SELECT sum_name, sum(sum_pkts), sum(sum_bytes), bool_and(oob_time_sec > 1700000000), bool_and(oob_time_usec < 1000000)
FROM nfacct GROUP BY sum_name ORDER BY 1
"""


class StockTests(SynchronousTestCase):
    """ulogd2 first, then ulogd_tw."""

    def test_same_rows(self):
        """The same rows of packets, flows and accounts, by functions, plain inserts and statements of one's own."""
        require_program("ulogd", "conntrack", "ping", "nft", "nfacct", "iptables")
        if not Path(PLUGINS, "ulogd_output_PGSQL.so").exists():
            require_program("ulogd2-pgsql")
        with PrivatePostgreSQL() as server, NetworkNamespaces(conntrack=True) as spaces:
            spaces.run("a", ["nft", "-f", "-"], input=stock.RULES)
            for words in (["nfacct", "add", "pings"], ["nfacct", "add", "none"], COUNTING):
                spaces.run("a", words)
            theirs = self.run_program(server, spaces, "ulogd")
            ours = self.run_program(server, spaces, "ulogd-tw")
        for table in (PACKETS, FLOWS, FLAT, REPLACED, ACCOUNTS):
            self.assertGreaterEqual(len(ours[table]), 2 if table == ACCOUNTS else 3)
            self.assertEqual(theirs[table], ours[table])
        self.assertEqual([("none", 0, 0, True, True), ("pings", 2, 168, True, True)], ours[ACCOUNTS])

    def run_program(self, server, spaces, program):
        """The rows that the program stores of some traffic."""
        database = f"nulog{len(program)}"
        stock.pgsql_schema(server, database)
        folder = temporary("pgsql")
        where = f'db="{database}"\nhost="{server.folder}"\nport={server.port}\nuser="nupik"\npass="changeme"'
        connstring = f"host={server.folder} port={server.port} dbname={database} user=nupik"
        stock.pgsql_schema(server, f"{database}r")
        text = CONFIGURATION.format(
            folder=folder, plugins=PLUGINS, where=where, connstring=connstring,
            replacing=where.replace(database, f"{database}r"),
        )  # fmt: skip
        (folder / "ulogd.conf").write_text(text)
        words = [program] if program == "ulogd" else [Path(sys.executable).with_name(program)]
        log = folder / "log"

        def ready(daemon):
            told = daemon.output() + (log.read_text() if log.exists() else "")
            return re.search("initialization finished|stacks run", told)

        replaced = f"{database}r"
        with Daemon(spaces.argv("a", [*words, "-c", folder / "ulogd.conf"]), ready, within=20):
            stock.make_traffic(spaces, sys.executable)
            for name, counted, least in (
                (database, "SELECT count(*) FROM ulog2_ct", 3),
                (database, "SELECT count(*) FROM flat", 6),
                (database, "SELECT count(*) FROM ulog", 10),
                (database, "SELECT sum(sum_pkts) FROM nfacct", 2),
                (replaced, "SELECT count(*) FROM ulog2_ct WHERE ct_event = 4", 3),
            ):
                self.wait_for(server, name, counted, least, log)
        tables = (PACKETS, FLOWS, FLAT, ACCOUNTS)
        found = {table: self.sorted(server.execute(table, dbname=database)) for table in tables}
        return found | {REPLACED: self.sorted(server.execute(REPLACED, dbname=replaced))}

    def wait_for(self, server, database, counted, least, log):
        """Wait until a number in a database is so large."""
        try:
            wait_until(lambda: (server.execute(counted, dbname=database)[0][0] or 0) >= least, 60, counted)
        except AssertionError as late:
            raise AssertionError(f"{late}: {log.read_text()[-3000:]}") from None

    @staticmethod
    def sorted(rows):
        return sorted(rows, key=str)
