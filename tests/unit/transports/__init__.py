"""Tests of ulogd_tw/transports."""
