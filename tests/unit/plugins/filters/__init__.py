"""Tests of ulogd_tw/plugins/filters."""
