/* Captures and packets: where records begin, and what headers say. */
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
