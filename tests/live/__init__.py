"""Tests that meet real parts: the kernel in network namespaces, collectors, exporters and databases."""
