"""Tests of ulogd_tw/storing."""
