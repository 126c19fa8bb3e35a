"""libusrsctp, SCTP in user space (Debian package libusrsctp2), through cffi without a compiler."""

from __future__ import annotations

from functools import cache
from typing import Any

from cffi import FFI

from ulogd_tw.transports.errors import SctpUnavailable

AF_CONN, PROTOCOL = 123, 132
SOCK_STREAM = 1
SOL_SOCKET, SO_LINGER, SO_SNDBUF, SO_RCVBUF = 1, 13, 7, 8
EVENT_READ, EVENT_WRITE, EVENT_ERROR = 1, 2, 4
RTOINFO, ASSOCINFO, INITMSG, NODELAY, PEER_ADDR_PARAMS = 1, 2, 3, 4, 10
EVENT, RECVRCVINFO, PLUGGABLE_SS, STATUS, GET_SNDBUF_USE = 0x1E, 0x1F, 0x1203, 0x100, 0x1101
SS_FIRST_COME = 5
MSG_NOTIFICATION, MSG_EOR = 0x2000, 0x80
UNORDERED, SACK_IMMEDIATELY = 0x0400, 0x4000
SNDINFO_VALID, PRINFO_VALID, SENDV_SPA = 1, 2, 4
PR_SCTP_TTL = 1
HEARTBEATS_ON, PMTU_FIXED = 0x01, 0x10

ASSOC_CHANGE, PEER_ADDR_CHANGE, SHUTDOWN_EVENT, PARTIAL_DELIVERY, SENDER_DRY, SEND_FAILED = 1, 2, 5, 7, 10, 14
NOTIFICATIONS = (ASSOC_CHANGE, PEER_ADDR_CHANGE, SHUTDOWN_EVENT, PARTIAL_DELIVERY, SENDER_DRY, SEND_FAILED)
COMM_UP, COMM_LOST, RESTART, SHUTDOWN_COMPLETE, CANNOT_START = 1, 2, 3, 4, 5
ADDRESS_AVAILABLE, ADDRESS_UNREACHABLE, ADDRESS_CONFIRMED = 1, 2, 6

ffi = FFI()
ffi.cdef("""
typedef uint32_t sctp_assoc_t; typedef uint32_t socklen_t;
struct socket;
struct linger { int on, seconds; };
struct sockaddr_conn { uint16_t family, port; void *address; };
struct sctp_initmsg { uint16_t streams, inbound, attempts, timeout; };
struct sctp_rtoinfo { sctp_assoc_t id; uint32_t initial, max, min; };
struct sctp_assocparams { sctp_assoc_t id; uint32_t peer_rwnd, local_rwnd, cookie_life; uint16_t max_rxt, peers; };
struct sctp_paddrparams { char address[128]; sctp_assoc_t id; uint32_t heartbeat, mtu, flags, flowlabel;
                          uint16_t max_rxt; uint8_t dscp; };
struct sctp_assoc_value { sctp_assoc_t id; uint32_t value; };
struct sctp_sockstat { sctp_assoc_t id; uint32_t send_octets, receive_octets; };
struct sctp_sndinfo { uint16_t stream, flags; uint32_t ppid, context; sctp_assoc_t id; };
struct sctp_prinfo { uint16_t policy; uint32_t value; };
struct sctp_authinfo { uint16_t key; };
struct sctp_sendv_spa { uint32_t flags; struct sctp_sndinfo send; struct sctp_prinfo pr; struct sctp_authinfo auth; };
struct sctp_rcvinfo { uint16_t stream, ssn, flags; uint32_t ppid, tsn, cumtsn, context; sctp_assoc_t id; };
struct sctp_event { sctp_assoc_t id; uint16_t type; uint8_t on; };
struct sctp_status { sctp_assoc_t id; int32_t state; uint32_t rwnd; uint16_t unacked, pending, inbound, outbound;
                     uint32_t fragment; char more[256]; };
void usrsctp_init_nothreads(uint16_t port, int (*)(void *address, void *packet, size_t n, uint8_t tos, uint8_t df),
                            void *debug);
struct socket *usrsctp_socket(int domain, int type, int protocol, void *, void *, uint32_t, void *);
int usrsctp_setsockopt(struct socket *, int level, int option, const void *, socklen_t);
int usrsctp_getsockopt(struct socket *, int level, int option, void *, socklen_t *);
ssize_t usrsctp_sendv(struct socket *, const void *, size_t, void *to, int n, void *info, socklen_t,
                      unsigned int type, int flags);
ssize_t usrsctp_recvv(struct socket *, void *, size_t, void *from, socklen_t *, void *info, socklen_t *,
                      unsigned int *type, int *flags);
int usrsctp_bind(struct socket *, void *, socklen_t);
int usrsctp_listen(struct socket *, int backlog);
struct socket *usrsctp_accept(struct socket *, void *, socklen_t *);
int usrsctp_connect(struct socket *, void *, socklen_t);
void usrsctp_close(struct socket *);
int usrsctp_shutdown(struct socket *, int how);
void usrsctp_conninput(void *address, const void *packet, size_t n, uint8_t ecn);
int usrsctp_set_non_blocking(struct socket *, int);
void usrsctp_register_address(void *);
void usrsctp_deregister_address(void *);
int usrsctp_set_upcall(struct socket *, void (*)(struct socket *, void *, int), void *);
int usrsctp_get_events(struct socket *);
void usrsctp_handle_timers(uint32_t elapsed_ms);
int usrsctp_sysctl_set_sctp_ecn_enable(uint32_t);
int usrsctp_sysctl_set_sctp_asconf_enable(uint32_t);
int usrsctp_sysctl_set_sctp_nr_outgoing_streams_default(uint32_t);
""")


@cache
def library() -> Any:
    """The library. Raises `SctpUnavailable` where it is not installed."""
    try:
        return ffi.dlopen("libusrsctp.so.2")
    except OSError:
        raise SctpUnavailable(
            "this kernel has no SCTP (modprobe sctp), and SCTP in user space is not installed: "
            "apt-get install libusrsctp2"
        ) from None
