"""Tests of ulogd_tw.core."""
