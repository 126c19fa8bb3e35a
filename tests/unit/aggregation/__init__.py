"""Tests of ulogd_tw/aggregation."""
