"""Tests of ulogd_tw/operating/commands."""
