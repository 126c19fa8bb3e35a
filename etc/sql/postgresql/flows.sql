-- Flows added up by their 5-tuple, one row a flow and interval, for PostgreSQL 12 and later:
--
--   stack=col1:COLLECTOR,agg1:AGGREGATE,db1:PGSQL        [agg1] key="5tuple"        [db1] table="flows"
--
--   psql flows < etc/sql/postgresql/flows.sql        (as the role of the service, which then owns the table)
--
-- PGSQL writes the columns of this table, by their names; drop unneeded ones before the start. A further column must
-- have the name of a key of AGGREGATE, or fill itself. Names are in lower case here, so that they need no quotes.

CREATE TABLE IF NOT EXISTS flows (
  id                        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  interval_start            timestamptz NOT NULL,  -- beginning of the interval of the row
  sourceaddress             inet,                  -- IPv4 or IPv6
  destinationaddress        inet,
  protocolidentifier        smallint,              -- 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6
  sourcetransportport       integer,               -- NULL: the protocol has none
  destinationtransportport  integer,
  flows                     numeric(20) NOT NULL,  -- records that were added up
  packets                   numeric(20),           -- NULL: nobody counted them
  octets                    numeric(20),
  first_ms                  timestamptz,           -- earliest start
  last_ms                   timestamptz            -- latest end
);

-- "all of the last hour", and the removal of what is old
CREATE INDEX IF NOT EXISTS flows_by_time ON flows (interval_start);
-- "who did this host talk to"
CREATE INDEX IF NOT EXISTS flows_by_source ON flows (sourceaddress, interval_start);
CREATE INDEX IF NOT EXISTS flows_by_destination ON flows (destinationaddress, interval_start);

-- Who sent most in the last hour:
--   SELECT sourceaddress, sum(octets) AS octets FROM flows WHERE interval_start >= now() - interval '1 hour'
--     GROUP BY sourceaddress ORDER BY octets DESC NULLS LAST LIMIT 10;
--
-- Keep 90 days: retain=90d and retain_by="interval_start" in [db1], or from cron:
--   DELETE FROM flows WHERE interval_start < now() - interval '90 days';
