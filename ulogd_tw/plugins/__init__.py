"""Inputs, filters and outputs: where a codec meets a transport. One plugin, one module, the same word."""
