"""Tests of ulogd_tw/exporting."""
