"""ulogd_tw: network flows metered, collected, aggregated, stored and exported by stacks of plugins, on Twisted."""

__version__ = "0.1.0"
