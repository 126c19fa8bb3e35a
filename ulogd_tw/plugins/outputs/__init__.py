"""Plugins that end a stack."""
