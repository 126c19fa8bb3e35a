-- A NAT log for PostgreSQL 12 and later: one row a connection when it ends, with the addresses and ports of both sides.
--
--   stack=ct1:NFCT,nat1:PGSQL        [nat1] table="nat"
--
--   psql nat < etc/sql/postgresql/nat.sql        (as the role of the service, which then owns the table)
--
-- orig is the direction of the first packet as the client sent it. reply goes back, so that its destination is the public
-- address and port behind which the client stood. NULL: the kernel did not tell.

CREATE TABLE IF NOT EXISTS nat (
  id                     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  flowstartmilliseconds  timestamptz,  -- needs nf_conntrack_timestamp=1
  flowendmilliseconds    timestamptz,  -- when the kernel forgot the connection
  orig_ip_protocol       smallint,     -- 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6
  orig_ip_saddr          inet,         -- the client
  orig_l4_sport          integer,      -- NULL: the protocol has none
  orig_ip_daddr          inet,         -- what the client asked for
  orig_l4_dport          integer,
  reply_ip_saddr         inet,         -- who answered
  reply_l4_sport         integer,
  reply_ip_daddr         inet,         -- the public address of the client
  reply_l4_dport         integer,      -- the public port of the client
  orig_raw_pktcount      numeric(20),  -- packets and octets need nf_conntrack_acct=1
  orig_raw_pktlen        numeric(20),
  reply_raw_pktcount     numeric(20),
  reply_raw_pktlen       numeric(20)
);

-- "who had this public address and port at this time"
CREATE INDEX IF NOT EXISTS nat_by_public ON nat (reply_ip_daddr, reply_l4_dport, flowendmilliseconds);
-- "what did this client do"
CREATE INDEX IF NOT EXISTS nat_by_client ON nat (orig_ip_saddr, flowendmilliseconds);
-- the removal of what is old
CREATE INDEX IF NOT EXISTS nat_by_end ON nat (flowendmilliseconds);

-- Who had 203.0.113.50 port 32768 at this second:
--   SELECT orig_ip_saddr, orig_l4_sport, flowstartmilliseconds, flowendmilliseconds FROM nat
--     WHERE reply_ip_daddr = '203.0.113.50' AND reply_l4_dport = 32768
--     AND flowstartmilliseconds <= '2026-11-23 14:32:16Z' AND flowendmilliseconds >= '2026-11-23 14:32:15Z';
--
-- Keep 180 days: retain=180d and retain_by="flowEndMilliseconds" in [nat1], or from cron:
--   DELETE FROM nat WHERE flowendmilliseconds < now() - interval '180 days';
