"""Templates of plugins for ulogd_tw: an input, a filter, an aggregator and an output."""
