/* Messages of netlink: where they begin in datagrams, which layout each one has, and the values at its places. All
   numbers of netlink itself are in the order of the host, values are in network byte order. */
#include "octets.h"
#include "kernels.h"

enum { HEADER = 16, SECOND = 28 };             /* octets of struct nlmsghdr; where the second attribute is, if first has 4 */

static inline uint16_t own_16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t own_32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t own_64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline int64_t padded(int64_t octets) { return (octets + 3) & ~(int64_t)3; }

/* The messages of datagrams that lie one after another and end at `ends`, multiples of 4. How many; `broken`: datagrams
   with octets that are no message. -1: no room. */
int64_t ut_datagrams(const uint8_t *memory, int64_t size, const int64_t *ends, int64_t n, int64_t *starts,
                     int64_t *lengths, int64_t room, int64_t *broken) {
    int64_t at = 0, found = 0;
    *broken = 0;
    for (int64_t datagram = 0; datagram < n; datagram++) {
        int64_t end = ends[datagram];
        if (!ut_within(at, end - at, size)) return -1;
        while (end - at >= HEADER) {
            int64_t octets = own_32(memory + at);
            if (octets < HEADER || padded(octets) > end - at) break;
            if (found == room) return -1;
            starts[found] = at;
            lengths[found++] = octets;
            at += padded(octets);
        }
        *broken += at < end;
        at = end;
    }
    return found;
}

/* layouts */

static inline uint32_t bucket(const ut_layouts *l, const uint8_t *message) {
    uint32_t found = 0;
    for (int64_t i = 0; i < l->n_hashed; i++) {
        const ut_hashed *h = l->hashed + i;
        if (!h->beyond || (own_16(message + SECOND + 2) == l->text && own_16(message + SECOND) > h->beyond))
            found ^= own_32(message + 4 * h->word) * h->factor;
    }
    return found >> 20;
}

static inline int differs(const ut_layouts *l, const uint8_t *message, int64_t id) {
    const uint64_t *expected = l->expected + id * l->wide, *mask = l->mask + id * l->wide;
    uint64_t other = 0;
    for (int64_t word = 0; word < l->compared; word++)
        other |= (own_64(message + 8 * word) ^ expected[word]) & mask[word];
    return other != 0;
}

/* Whether the last attribute of a layout with an open end ends with the message. */
static inline int fits(const ut_layouts *l, const uint8_t *message, int64_t length, int64_t id) {
    int64_t at = l->open_at[id];
    if (!at) return 1;
    if (!ut_within(at, 2, 8 * l->compared)) return 0;
    int64_t octets = own_16(message + at);
    return octets >= 4 && padded(at + octets) == padded(length) && at + octets <= length;
}

/* The layout of each message, 0 where none of those known is it; how many those are. Of each message as many octets as
   are compared lie in the memory. -1: they do not, or the tables are wrong. */
int64_t ut_match(const ut_layouts *l, const uint8_t *memory, int64_t size, const int64_t *starts,
                 const int64_t *lengths, int64_t n, int64_t *ids) {
    int64_t unknown = 0, compared = 8 * l->compared;
    if (l->compared > l->wide || compared < SECOND + 4) return -1;
    for (int64_t i = 0; i < l->n_hashed; i++) if (!ut_within(4 * (int64_t)l->hashed[i].word, 4, compared)) return -1;
    for (int64_t i = 0; i < n; i++) {
        if (!ut_within(starts[i], compared, size)) return -1;
        const uint8_t *message = memory + starts[i];
        int64_t id = 0;
        if (own_32(message) == lengths[i]) {
            uint32_t place = bucket(l, message);
            if (place >= l->buckets) return -1;
            for (id = l->first[place]; id; id = l->next[id]) {
                if (!ut_within(id, 1, l->layouts)) return -1;
                if (!differs(l, message, id)) break;
            }
            if (id && !fits(l, message, lengths[i], id)) id = 0;
        }
        ids[i] = id;
        unknown += !id;
    }
    return unknown;
}

/* Values of 64, 32, 16 and 8 bits, a column of `n` after another in `out`. `words` has for each of them, 32 bits first,
   then 16, 8, the high and the low halves of 64, the 32-bit word of a message where each layout has it. 0, or -1 where
   a value lies outside the memory. */
int64_t ut_values(const uint8_t *memory, int64_t size, const int64_t *bases, const int64_t *ids, int64_t n,
                  const int64_t *words, int64_t layouts, int64_t of_64, int64_t of_32, int64_t of_16, int64_t of_8,
                  uint8_t *out, int64_t room) {
    if (!ut_within(0, n * (8 * of_64 + 4 * of_32 + 2 * of_16 + of_8), room)) return -1;
    uint64_t *wide = (uint64_t *)out;
    uint32_t *whole = (uint32_t *)(wide + n * of_64);
    uint16_t *half = (uint16_t *)(whole + n * of_32);
    uint8_t *octet = (uint8_t *)(half + n * of_16);
    const int64_t *high = words + (of_32 + of_16 + of_8) * layouts, *low = high + of_64 * layouts;
    for (int64_t i = 0; i < n; i++) {
        int64_t base = bases[i], id = ids[i];
        if (!ut_within(id, 1, layouts) || !ut_within(base, 0, size)) return -1;
        const uint8_t *message = memory + base;
        int64_t octets = size - base;
        const int64_t *at = words + id;
#define VALUE(w) ({ if (!ut_within(4 * (w), 4, octets)) return -1; ut_32(message + 4 * (w)); })
        for (int64_t v = 0; v < of_32; v++, at += layouts) whole[v * n + i] = VALUE(*at);
        for (int64_t v = 0; v < of_16; v++, at += layouts) half[v * n + i] = VALUE(*at) >> 16;
        for (int64_t v = 0; v < of_8; v++, at += layouts) octet[v * n + i] = VALUE(*at) >> 24;
        for (int64_t v = 0; v < of_64; v++) {
            int64_t above = high[v * layouts + id], below = low[v * layouts + id];
            wide[v * n + i] = (uint64_t)VALUE(above) << 32 | VALUE(below);
        }
#undef VALUE
    }
    return 0;
}
