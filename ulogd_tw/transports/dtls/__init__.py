"""DTLS over UDP."""
