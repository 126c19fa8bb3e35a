"""The Exporting Process (RFC 7011)."""
