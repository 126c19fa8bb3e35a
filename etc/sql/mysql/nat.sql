-- A NAT log for MySQL and MariaDB: one row a connection when it ends, with the addresses and ports of both sides.
--
--   stack=ct1:NFCT,nat1:MYSQL        [nat1] table="nat"
--
--   mysql nat < etc/sql/mysql/nat.sql
--
-- orig is the direction of the first packet as the client sent it. reply goes back, so that its destination is the public
-- address and port behind which the client stood. NULL: the kernel did not tell.

CREATE TABLE IF NOT EXISTS nat (
  id                     BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  flowStartMilliseconds  BIGINT UNSIGNED    COMMENT 'milliseconds since 1970, with nf_conntrack_timestamp=1',
  flowEndMilliseconds    BIGINT UNSIGNED    COMMENT 'when the kernel forgot the connection',
  orig_ip_protocol       TINYINT UNSIGNED   COMMENT '6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6',
  orig_ip_saddr          VARCHAR(45)        COMMENT 'the client',
  orig_l4_sport          SMALLINT UNSIGNED  COMMENT 'NULL: the protocol has none',
  orig_ip_daddr          VARCHAR(45)        COMMENT 'what the client asked for',
  orig_l4_dport          SMALLINT UNSIGNED,
  reply_ip_saddr         VARCHAR(45)        COMMENT 'who answered',
  reply_l4_sport         SMALLINT UNSIGNED,
  reply_ip_daddr         VARCHAR(45)        COMMENT 'the public address of the client',
  reply_l4_dport         SMALLINT UNSIGNED  COMMENT 'the public port of the client',
  orig_raw_pktcount      BIGINT UNSIGNED    COMMENT 'packets and octets need nf_conntrack_acct=1',
  orig_raw_pktlen        BIGINT UNSIGNED,
  reply_raw_pktcount     BIGINT UNSIGNED,
  reply_raw_pktlen       BIGINT UNSIGNED,
  PRIMARY KEY (id),
  -- "who had this public address and port at this time"
  KEY by_public (reply_ip_daddr, reply_l4_dport, flowEndMilliseconds),
  -- "what did this client do"
  KEY by_client (orig_ip_saddr, flowEndMilliseconds),
  -- the removal of what is old
  KEY by_end (flowEndMilliseconds)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;

-- Keep 180 days; from cron, until it removes no more:
--   DELETE FROM nat WHERE flowEndMilliseconds < 1000 * (UNIX_TIMESTAMP() - 180 * 86400) LIMIT 100000;
