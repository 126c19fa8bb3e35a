"""Tests that need no root, no sockets and no sleep; the folders mirror ulogd_tw."""
