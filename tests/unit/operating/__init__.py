"""Tests of ulogd_tw/operating."""
