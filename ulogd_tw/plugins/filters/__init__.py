"""Plugins between an input and an output."""
