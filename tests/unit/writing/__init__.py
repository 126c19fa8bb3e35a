"""Tests of ulogd_tw/writing."""
