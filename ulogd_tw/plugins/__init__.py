"""Inputs, filters and outputs: one plugin a module, each a declaration and few methods over the engines below."""
