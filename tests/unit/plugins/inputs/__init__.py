"""Tests of ulogd_tw/plugins/inputs."""
