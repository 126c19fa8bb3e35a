"""Tests of the flow store's files."""
