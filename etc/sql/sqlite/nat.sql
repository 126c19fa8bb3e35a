-- A NAT log for SQLite: one row a connection when it ends, with the addresses and ports of both sides.
--
--   stack=ct1:NFCT,nat1:SQLITE3        [nat1] table="nat"
--
--   sqlite3 /var/lib/ulogd/nat.sqlite3 < etc/sql/sqlite/nat.sql        (as the user of the service)
--
-- orig is the direction of the first packet as the client sent it. reply goes back, so that its destination is the public
-- address and port behind which the client stood. NULL: the kernel did not tell.

CREATE TABLE IF NOT EXISTS nat (
  flowStartMilliseconds  INTEGER,  -- milliseconds since 1970; needs nf_conntrack_timestamp=1
  flowEndMilliseconds    INTEGER,  -- when the kernel forgot the connection
  orig_ip_protocol       INTEGER,  -- 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6
  orig_ip_saddr          TEXT,     -- the client
  orig_l4_sport          INTEGER,  -- NULL: the protocol has none
  orig_ip_daddr          TEXT,     -- what the client asked for
  orig_l4_dport          INTEGER,
  reply_ip_saddr         TEXT,     -- who answered
  reply_l4_sport         INTEGER,
  reply_ip_daddr         TEXT,     -- the public address of the client
  reply_l4_dport         INTEGER,  -- the public port of the client
  -- Packets and octets need nf_conntrack_acct=1. Without a type a number of 2**63 or more stays exact, as text.
  orig_raw_pktcount,
  orig_raw_pktlen,
  reply_raw_pktcount,
  reply_raw_pktlen
);

-- "who had this public address and port at this time"
CREATE INDEX IF NOT EXISTS nat_by_public ON nat (reply_ip_daddr, reply_l4_dport, flowEndMilliseconds);
-- "what did this client do"
CREATE INDEX IF NOT EXISTS nat_by_client ON nat (orig_ip_saddr, flowEndMilliseconds);
-- the removal of what is old
CREATE INDEX IF NOT EXISTS nat_by_end ON nat (flowEndMilliseconds);

-- Keep 180 days (the space is used again):
--   DELETE FROM nat WHERE flowEndMilliseconds < 1000 * (strftime('%s', 'now') - 180 * 86400);
