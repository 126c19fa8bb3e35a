"""Files and sockets that text outputs write to."""
