"""The Collecting Process (RFC 7011)."""
