"""Tests of ulogd_tw.match."""
