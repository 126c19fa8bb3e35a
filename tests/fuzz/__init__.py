"""Fuzz targets for every decoder: see `tests.fuzz.targets`, and `make fuzz`."""
