"""Tests of ulogd_tw/collecting."""
