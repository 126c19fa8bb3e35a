"""Outputs: plugins at the end of a stack."""
