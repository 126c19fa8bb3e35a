"""Tests of the netfilter codec."""
