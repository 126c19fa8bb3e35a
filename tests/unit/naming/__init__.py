"""Tests of ulogd_tw.naming."""
