"""Tests of `ulogd_tw.operating.api`."""
