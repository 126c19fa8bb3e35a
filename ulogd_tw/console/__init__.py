"""The console: a page that shows flows, stacks, alerts, and who had an address.

The page is static: HTML, one style sheet and modules of JavaScript, which ask the API as every other client does.
Plotly draws; its script is in its Python package, which the service does not import.
"""

__all__ = ["files", "pages"]
