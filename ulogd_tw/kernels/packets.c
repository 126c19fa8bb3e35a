/* Captures and packets: where records begin, and how far headers reach. */
#include "octets.h"
#include "kernels.h"

/* The beginnings of the records from `at` on, while `least` octets of each are there, and the next place behind them;
   their number. A record says its octets, but for `more`, in 32 bits `place` octets after its beginning. The walk ends
   with a record of less than `least` octets, behind which nothing begins. */
int64_t ut_records(const uint8_t *memory, int64_t size, int64_t at, int64_t place, int big_endian, int64_t more,
                   int64_t least, int64_t *found, int64_t room) {
    int64_t n = 0;
    if (!ut_within(place, 4, least)) return -1;
    while (ut_within(at, least, size)) {
        if (n == room) return -1;
        found[n++] = at;
        uint32_t octets;
        memcpy(&octets, memory + at + place, 4);
        if (big_endian) octets = __builtin_bswap32(octets);
        if (octets + more < least) return n;
        at += octets + more;
    }
    if (n == room) return -1;
    found[n++] = at;
    return n;
}

/* headers: the places of packets move on over one header after another */

enum { ETHERNET = 1, IP = 2, MPLS = 3, LEAST_TYPE = 0x600, IPV4 = 0x0800, IPV6 = 0x86DD, TCP = 6, PROTOCOLS = 256 };
enum { CUT = 1, MALFORMED = 2 };

static inline void blame(ut_packets *w, int64_t i, uint8_t fault) { if (!w->fault[i]) w->fault[i] = fault; }

/* Whether a header of some octets lies within packet i; a packet without it is cut. */
static inline int whole(ut_packets *w, int64_t i, int64_t octets) {
    if (w->at[i] + octets <= w->end[i]) return 1;
    blame(w, i, CUT);
    return 0;
}

/* The header before IP of every packet whose EtherType is none of `others`, which have a header of their own. How many
   are left to others, which `odd` says; -1: a packet lies outside. */
int64_t ut_links(ut_packets *w, const int64_t *first, const uint8_t *others, uint8_t *odd) {
    int64_t left = 0;
    for (int64_t i = 0; i < w->n; i++) {
        int64_t type = first[i], at = w->at[i], octets = type == ETHERNET ? 14 : type == IP ? 1 : 0;
        odd[i] = 0;
        if (octets && !whole(w, i, octets)) continue;
        if (!ut_within(at, octets, w->size)) return -1;
        if (type == IP) {
            int version = w->memory[at] >> 4;
            w->kind[i] = version == 4 ? IPV4 : version == 6 ? IPV6 : 0;
            continue;
        }
        if (type == ETHERNET) type = ut_16(w->memory + at + 12);
        else if (type < LEAST_TYPE && type != MPLS) continue;
        odd[i] = !ut_within(type, 1, 1 << 16) || others[type];
        left += odd[i];
        if (!odd[i]) { w->at[i] = at + octets; w->kind[i] = type; }
    }
    return left;
}

/* The family of each packet, 4, 6 or 0: whether the fixed header of IP is there, and of its version. */
int64_t ut_families(ut_packets *w, uint8_t *family) {
    for (int64_t i = 0; i < w->n; i++) {
        int version = w->kind[i] == IPV4 ? 4 : w->kind[i] == IPV6 ? 6 : 0;
        family[i] = 0;
        if (!version || !whole(w, i, version == 4 ? 20 : 40)) continue;
        if (!ut_within(w->at[i], 1, w->size)) return -1;
        if (w->memory[w->at[i]] >> 4 == version) family[i] = version;
        else blame(w, i, MALFORMED);
    }
    return w->n;
}

/* Over the header of IPv4, which is there: the packet ends where it says. `protocol`: of what follows; -1 in later
   fragments and behind impossible headers. */
int64_t ut_ipv4(ut_packets *w, const int64_t *rows, int64_t n, int32_t *protocol) {
    for (int64_t row = 0; row < n; row++) {
        int64_t i = rows[row];
        if (!ut_within(i, 1, w->n) || !ut_within(w->at[i], 20, w->size)) return -1;
        int64_t at = w->at[i], end = w->end[i];
        const uint8_t *p = w->memory + at;
        int64_t header = 4 * (p[0] & 15), octets = ut_16(p + 2);
        if (header < 20 || (octets < header && octets)) blame(w, i, MALFORMED);
        if (octets >= header && at + octets < end) end = at + octets;
        if (at + header > end) blame(w, i, CUT);
        w->end[i] = end;
        w->at[i] = at + header < end ? at + header : end;
        protocol[row] = header < 20 || ut_16(p + 6) & 0x1FFF ? -1 : p[9];
    }
    return n;
}

/* Whether the headers behind IP are whole; `least` has the octets of each protocol's, and last what those without have. */
int64_t ut_transport(ut_packets *w, const int64_t *rows, int64_t n, const int32_t *protocol, const int64_t *least) {
    for (int64_t row = 0; row < n; row++) {
        int64_t i = rows[row], kind = protocol[row] < 0 ? PROTOCOLS : protocol[row];
        if (!ut_within(i, 1, w->n) || kind > PROTOCOLS) return -1;
        if (!whole(w, i, least[kind]) || kind != TCP) continue;
        if (!ut_within(w->at[i], 13, w->size)) return -1;
        if (w->memory[w->at[i] + 12] >> 4 < 5) blame(w, i, MALFORMED);
    }
    return n;
}
