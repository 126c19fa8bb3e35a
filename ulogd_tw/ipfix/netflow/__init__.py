"""NetFlow v1, v5, v7 and v9."""
