-- Logged packets for PostgreSQL 12 and later: one row a packet of NFLOG, as a rule of nftables or iptables logs it.
--
--   stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,db1:PGSQL        [log1] group=1        [db1] table="packets"
--
--   psql packets < etc/sql/postgresql/packets.sql        (as the role of the service, which then owns the table)
--
-- PGSQL writes the columns of this table, by their names; drop unneeded ones before the start. NULL: the packet has no
-- such field.

CREATE TABLE IF NOT EXISTS packets (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  oob_time_sec   bigint,    -- seconds since 1970
  oob_time_usec  integer,
  at             timestamptz GENERATED ALWAYS AS (to_timestamp(oob_time_sec + oob_time_usec / 1e6::float8)) STORED,
  oob_prefix     text,      -- the prefix of the rule
  oob_mark       bigint,
  oob_in         text,      -- interfaces, by their names
  oob_out        text,
  ip_protocol    smallint,  -- 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6
  ip_saddr       inet,
  ip_daddr       inet,
  ip_ttl         smallint,  -- of IPv4
  ip_totlen      integer,
  tcp_sport      integer,
  tcp_dport      integer,
  tcp_syn        boolean,
  tcp_ack        boolean,
  tcp_fin        boolean,
  tcp_rst        boolean,
  udp_sport      integer,
  udp_dport      integer,
  icmp_type      smallint,
  icmp_code      smallint,
  icmpv6_type    smallint,
  icmpv6_code    smallint
);

-- "all of the last hour", and the removal of what is old
CREATE INDEX IF NOT EXISTS packets_by_time ON packets (at);
-- "what did this host send"
CREATE INDEX IF NOT EXISTS packets_by_source ON packets (ip_saddr, at);

-- Which senders met a rule most often in the last hour:
--   SELECT ip_saddr, oob_prefix, count(*) FROM packets WHERE at >= now() - interval '1 hour'
--     GROUP BY ip_saddr, oob_prefix ORDER BY count(*) DESC LIMIT 10;
--
-- Keep 30 days; from cron:
--   DELETE FROM packets WHERE at < now() - interval '30 days';
