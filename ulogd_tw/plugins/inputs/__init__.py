"""Inputs: plugins at the beginning of a stack."""
