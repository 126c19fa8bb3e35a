/* Numbers of the wire, and the one place where bounds are checked. */
#ifndef UT_OCTETS_H
#define UT_OCTETS_H
#include <stdint.h>
#include <string.h>

/* Whether `octets` from `at` on lie within `size`; no sum can overflow. */
static inline int ut_within(int64_t at, int64_t octets, int64_t size) {
    return at >= 0 && octets >= 0 && octets <= size && at <= size - octets;
}

static inline uint16_t ut_16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t ut_32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t ut_64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }

static inline uint64_t ut_number(const uint8_t *p, int octets) {
    uint64_t v = 0;
    for (int i = 0; i < octets; i++) v = v << 8 | p[i];
    return v;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels are for little-endian machines: others run on NumPy"
#endif
#endif
