-- Flows added up by their 5-tuple, one row a flow and interval, for SQLite:
--
--   stack=col1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3        [agg1] key="5tuple"        [db1] table="flows"
--
--   sqlite3 /var/lib/ulogd/flows.sqlite3 < etc/sql/sqlite/flows.sql        (as the user of the service)
--
-- SQLITE3 writes the columns that are here, by their names; drop those that you do not need, before the start. A column of
-- another name has to be a key that AGGREGATE gives.

CREATE TABLE IF NOT EXISTS flows (
  interval_start            INTEGER NOT NULL,  -- seconds since 1970: beginning of the interval of the row
  sourceAddress             TEXT,              -- IPv4 or IPv6
  destinationAddress        TEXT,
  protocolIdentifier        INTEGER,           -- 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6
  sourceTransportPort       INTEGER,           -- NULL: the protocol has none
  destinationTransportPort  INTEGER,
  -- These may have 64 bits. Without a type a number of 2**63 or more stays exact, as text; INTEGER would round it.
  flows,                                       -- records that were added up
  packets,                                     -- NULL: nobody counted them
  octets,
  first_ms                  INTEGER,           -- earliest start, milliseconds since 1970
  last_ms                   INTEGER            -- latest end
);

-- "all of the last hour", and the removal of what is old
CREATE INDEX IF NOT EXISTS flows_by_time ON flows (interval_start);
-- "who did this host talk to"
CREATE INDEX IF NOT EXISTS flows_by_source ON flows (sourceAddress, interval_start);
CREATE INDEX IF NOT EXISTS flows_by_destination ON flows (destinationAddress, interval_start);

-- Who sent most in the last hour:
--   SELECT sourceAddress, SUM(octets) AS octets FROM flows WHERE interval_start >= strftime('%s', 'now') - 3600
--     GROUP BY sourceAddress ORDER BY octets DESC LIMIT 10;
--
-- Keep 90 days (the space is used again):
--   DELETE FROM flows WHERE interval_start < strftime('%s', 'now') - 90 * 86400;
