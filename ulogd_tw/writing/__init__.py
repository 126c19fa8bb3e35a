"""Files and sockets for the text outputs."""
