"""Tests of ulogd_tw/plugins/outputs."""
