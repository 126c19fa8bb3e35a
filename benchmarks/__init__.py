"""Measurements of this project beside its peers. Ratios within one run count; absolute figures are the machine's."""
