"""The Metering Process (RFC 7011 section 2): flows made of packets, and flows measured by the kernel."""
