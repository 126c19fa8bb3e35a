"""Filters: plugins between an input and an output."""
