"""Tests of ulogd_tw/metering."""
