"""NetFlow v9 and v5."""
