"""Options and checks of TLS and SCTP, shared by inputs and outputs."""
