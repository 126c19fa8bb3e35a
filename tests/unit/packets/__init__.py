"""Tests of the codecs of packets."""
