"""sFlow."""
