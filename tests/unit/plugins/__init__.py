"""Tests of plugins, one module each."""
