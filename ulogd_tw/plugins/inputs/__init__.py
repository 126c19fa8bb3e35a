"""Plugins that begin a stack."""
