"""Tests of ulogd_tw/kernels."""
