"""AGGREGATE's engine (RFC 7015)."""
