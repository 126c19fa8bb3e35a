"""Why a flow ended: the values of flowEndReason (Information Element 136, RFC 5102 section 5.11.3)."""

IDLE = 1
"""No packet came for the idle timeout."""
ACTIVE = 2
"""The flow goes on; it was reported at its active timeout."""
ENDED = 3
"""The end of the flow was seen, such as a FIN."""
FORCED = 4
"""The metering process stopped."""
NO_ROOM = 5
"""The metering process needed the memory."""
