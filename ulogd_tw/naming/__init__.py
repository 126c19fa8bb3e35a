"""Names for addresses, ports, interfaces and marks, from files: networks, services, countries, autonomous systems."""
