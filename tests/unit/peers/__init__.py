"""Tests of ulogd_tw/peers."""
