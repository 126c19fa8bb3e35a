"""Tests of the IPFIX codec."""
