"""Tests of ulogd_tw/kernels."""

from ulogd_tw import kernels

_WHY = kernels.why_not()
SKIP = _WHY if _WHY.endswith("=off") else f"install: {_WHY}"
"""Why there is nothing to compare with NumPy: asked for, or something could have been installed."""
