"""Names for addresses and ports out of files: networks, services, databases of countries and autonomous systems."""
