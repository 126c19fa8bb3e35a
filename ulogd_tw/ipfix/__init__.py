"""IPFIX (RFC 7011): octets to batches and back."""
