"""Numbers of the kernel's capabilities that plugins need (linux/capability.h)."""

NET_ADMIN, NET_RAW = 12, 13
