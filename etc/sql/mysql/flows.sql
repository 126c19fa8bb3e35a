-- Flows added up by their 5-tuple, one row a flow and interval, for MySQL and MariaDB:
--
--   stack=col1:COLLECTOR,agg1:AGGREGATE,db1:MYSQL        [agg1] key="5tuple"        [db1] table="flows"
--
--   mysql flows < etc/sql/mysql/flows.sql
--
-- MYSQL writes the columns of this table, by their names; drop unneeded ones before the start. A further column must
-- have the name of a key of AGGREGATE, or fill itself.

CREATE TABLE IF NOT EXISTS flows (
  id                        BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  interval_start            INT UNSIGNED NOT NULL    COMMENT 'seconds since 1970: beginning of the interval of the row',
  sourceAddress             VARCHAR(45)              COMMENT 'IPv4 or IPv6, as text',
  destinationAddress        VARCHAR(45),
  protocolIdentifier        TINYINT UNSIGNED         COMMENT '6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6',
  sourceTransportPort       SMALLINT UNSIGNED        COMMENT 'NULL: the protocol has none',
  destinationTransportPort  SMALLINT UNSIGNED,
  flows                     BIGINT UNSIGNED NOT NULL COMMENT 'records that were added up',
  packets                   BIGINT UNSIGNED          COMMENT 'NULL: nobody counted them',
  octets                    BIGINT UNSIGNED,
  first_ms                  BIGINT UNSIGNED          COMMENT 'earliest start, milliseconds since 1970',
  last_ms                   BIGINT UNSIGNED          COMMENT 'latest end',
  PRIMARY KEY (id),
  -- "all of the last hour", and the removal of what is old
  KEY by_time (interval_start),
  -- "who did this host talk to"
  KEY by_source (sourceAddress, interval_start),
  KEY by_destination (destinationAddress, interval_start)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;

-- Who sent most in the last hour:
--   SELECT sourceAddress, SUM(octets) AS octets FROM flows WHERE interval_start >= UNIX_TIMESTAMP() - 3600
--     GROUP BY sourceAddress ORDER BY octets DESC LIMIT 10;
--
-- Keep 90 days; from cron, until it removes no more:
--   DELETE FROM flows WHERE interval_start < UNIX_TIMESTAMP() - 90 * 86400 LIMIT 100000;
