"""Inputs, filters and outputs: one plugin a module, each a declaration and few methods over the engines below.

`registry` finds the classes by name and position. A plugin's module is loaded when a stack first names it, so nothing
is imported here.
"""

__all__ = ["filters", "inputs", "outputs"]
