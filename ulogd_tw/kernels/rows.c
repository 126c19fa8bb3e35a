/* Rows of columns to lines of text: each cell is a text that all rows have, and a value behind it. */
#include "octets.h"
#include "kernels.h"

enum { NOTHING, UNSIGNED, SIGNED, HEXADECIMAL, FRACTION, IPV4, IPV6, MAC, TEXTS };   /* kinds of a cell */
enum { AS_IT_IS, JSON, PLAIN, DIGITS, COLONS };                                      /* forms of texts */
enum { WIDEST = 48, SLACK = 16 };              /* octets of a value that is no text; of copies beyond what is needed */

static const char PAIRS[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
static const char HEX[] = "0123456789abcdef";
static const uint8_t MOST_FOR_ONE[] = {1, 6, 4, 2, 3};     /* octets that one octet of a text becomes, by form */

/* Copies of any length; short ones without a call. */
static inline uint8_t *copied(uint8_t *o, const uint8_t *p, int64_t n) {
    if (n >= 8) {
        if (n <= 16) { uint64_t a, b; memcpy(&a, p, 8); memcpy(&b, p + n - 8, 8); memcpy(o, &a, 8); memcpy(o + n - 8, &b, 8); }
        else if (n <= 32) {
            uint8_t a[16], b[16];
            memcpy(a, p, 16); memcpy(b, p + n - 16, 16); memcpy(o, a, 16); memcpy(o + n - 16, b, 16);
        } else memcpy(o, p, n);
    } else if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, p, 4); memcpy(&b, p + n - 4, 4); memcpy(o, &a, 4); memcpy(o + n - 4, &b, 4);
    } else for (int64_t i = 0; i < n; i++) o[i] = p[i];
    return o + n;
}

/* numbers */

static inline int digits_of(uint64_t v) {
    static const uint64_t power[] = {0, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000,
        10000000000, 100000000000, 1000000000000, 10000000000000, 100000000000000, 1000000000000000,
        10000000000000000, 100000000000000000, 1000000000000000000, 10000000000000000000u};
    int at_least = (64 - __builtin_clzll(v | 1)) * 1233 >> 12;
    return at_least - (v < power[at_least]) + 1;
}

static inline uint8_t *decimal(uint8_t *o, uint64_t v, int digits) {
    uint8_t *p = o + digits;
    for (; v >= 100; v /= 100) { p -= 2; memcpy(p, PAIRS + 2 * (v % 100), 2); }
    if (p - o >= 2) { p -= 2; memcpy(p, PAIRS + 2 * v, 2); } else if (p > o) *--p = '0' + v;
    while (p > o) *--p = '0';
    return o + digits;
}

static inline uint8_t *hexadecimal(uint8_t *o, uint64_t v, int least) {
    int digits = (67 - __builtin_clzll(v | 1)) / 4;
    if (digits < least) digits = least;
    for (int place = digits - 1; place >= 0; place--, v >>= 4) o[place] = HEX[v & 15];
    return o + digits;
}

/* addresses */

static inline uint8_t *octet(uint8_t *o, unsigned v) {
    if (v < 10) { *o = '0' + v; return o + 1; }
    if (v < 100) { memcpy(o, PAIRS + 2 * v, 2); return o + 2; }
    *o = '0' + v / 100;
    memcpy(o + 1, PAIRS + 2 * (v % 100), 2);
    return o + 3;
}

static inline uint8_t *ipv4(uint8_t *o, uint32_t v) {
    o = octet(o, v >> 24); *o++ = '.';
    o = octet(o, v >> 16 & 255); *o++ = '.';
    o = octet(o, v >> 8 & 255); *o++ = '.';
    return octet(o, v & 255);
}

/* RFC 5952 section 4: two colons for the longest run of two or more groups of zeros, the first of equally long ones.
   IPv4 addresses in ::ffff:0:0/96 and ::/96 have dots (section 5), but for ::, ::1 and others of 16 bits, as glibc. */
static uint8_t *ipv6(uint8_t *o, const uint8_t *p) {
    uint64_t half[2];
    int from = 8, most = 1;
    memcpy(half, p, 16);
    if (!half[0] && (half[1] >> 32 == 0xffff || (half[1] >> 32 == 0 && half[1] >> 16))) {
        *o++ = ':'; *o++ = ':';
        if (half[1] >> 32) { memcpy(o, "ffff:", 5); o += 5; }
        return ipv4(o, half[1]);
    }
    for (int g = 0, run = 0; g < 8; g++) {
        run = half[g >> 2] >> (48 - 16 * (g & 3)) & 0xffff ? 0 : run + 1;
        if (run > most) { most = run; from = g + 1 - run; }
    }
    for (int g = 0; g < 8; g++) {
        if (g == from) { *o++ = ':'; if (g + most == 8) *o++ = ':'; g += most - 1; continue; }
        if (g) *o++ = ':';
        o = hexadecimal(o, half[g >> 2] >> (48 - 16 * (g & 3)) & 0xffff, 1);
    }
    return o;
}

/* Octets in hexadecimal, with `between` (0: nothing) from one to the next. */
static inline uint8_t *octets(uint8_t *o, const uint8_t *p, int64_t n, uint8_t between) {
    for (int64_t i = 0; i < n; i++) {
        if (i && between) *o++ = between;
        *o++ = HEX[p[i] >> 4];
        *o++ = HEX[p[i] & 15];
    }
    return o;
}

static inline uint8_t *mac(uint8_t *o, uint64_t v) {
    uint64_t big = __builtin_bswap64(v);
    uint8_t p[8];
    memcpy(p, &big, 8);
    return octets(o, p + 2, 6, ':');
}

/* strings */

#define EACH(c) (0x0101010101010101u * (c))
#define ZERO_IN(x) (((x) - EACH(1)) & ~(x))

/* One character of several octets; U+FFFD for the octets that only begin one, and for what begins none. */
static uint8_t *character(uint8_t *o, const uint8_t **at, const uint8_t *end, int form) {
    const uint8_t *p = *at;
    uint8_t c = p[0], low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    int wanted = c < 0xc2 || c > 0xf4 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4, n = 1;
    for (; n < wanted && p + n < end && p[n] >= low && p[n] <= high; n++) { low = 0x80; high = 0xbf; }
    *at = p + n;
    if (n != wanted) return copied(o, (const uint8_t *)"\xef\xbf\xbd", 3);
    if (form == PLAIN && c == 0xc2 && p[1] == 0x85) return copied(o, (const uint8_t *)"\\x85", 4);
    if (form == PLAIN && c == 0xe2 && p[1] == 0x80 && (p[2] | 1) == 0xa9)
        return copied(o, (const uint8_t *)(p[2] & 1 ? "\\x2029" : "\\x2028"), 6);
    return copied(o, p, n);
}

/* A character that a line or a string of JSON cannot have. */
static uint8_t *control(uint8_t *o, uint8_t c, int form) {
    uint8_t word = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : 0;
    if (form == JSON) word = c == '"' || c == '\\' ? c : c == '\b' ? 'b' : c == '\f' ? 'f' : word;
    *o++ = '\\';
    if (word) { *o++ = word; return o; }
    if (form == JSON) o = copied(o, (const uint8_t *)"u00", 3); else *o++ = 'x';
    return octets(o, &c, 1, 0);
}

static uint8_t *escaped(uint8_t *o, const uint8_t *p, const uint8_t *end, int form) {
    uint8_t quote = form == JSON ? '"' : 127, slash = form == JSON ? '\\' : 127;
    while (p < end) {
        for (uint64_t x; end - p >= 8; p += 8, o += 8) {
            memcpy(&x, p, 8);
            if ((x | ((x - EACH(32)) & ~x) | ZERO_IN(x ^ EACH(quote)) | ZERO_IN(x ^ EACH(slash))) & EACH(128)) break;
            memcpy(o, &x, 8);
        }
        if (p == end) break;
        uint8_t c = *p;
        if (c >= 128) { o = character(o, &p, end, form); continue; }
        if (c < 32 || c == quote || c == slash) o = control(o, c, form); else *o++ = c;
        p++;
    }
    return o;
}

static inline uint8_t *text(uint8_t *o, const uint8_t *p, int64_t n, int form) {
    switch (form) {
    case AS_IT_IS: return copied(o, p, n);
    case DIGITS: return octets(o, p, n, 0);
    case COLONS: return octets(o, p, n, ':');
    default: return escaped(o, p, p + n, form);
    }
}

/* cells */

static inline uint64_t held(const ut_cell *c, int64_t row) {
    const uint8_t *p = c->values + row * c->step;
    uint16_t two; uint32_t four; uint64_t eight;
    switch (c->width) {
    case 1: return *p;
    case 2: memcpy(&two, p, 2); return two;
    case 4: memcpy(&four, p, 4); return four;
    default: memcpy(&eight, p, 8); return eight;
    }
}

static inline uint8_t *value(uint8_t *o, const ut_cell *c, int64_t row) {
    uint64_t v;
    if (c->kind == IPV6) return ipv6(o, c->values + row * c->step);
    v = held(c, row);
    switch (c->kind) {
    case SIGNED: {
        int unused = 64 - 8 * c->width;
        int64_t s = (int64_t)(v << unused) >> unused;
        if (s < 0) { *o++ = '-'; v = -(uint64_t)s; } else v = s;
        return decimal(o, v, digits_of(v));
    }
    case HEXADECIMAL: return hexadecimal(o, v, c->form);
    case FRACTION: *o++ = '.'; return decimal(o, v % 1000000, 6);
    case IPV4: return ipv4(o, v);
    case MAC: return mac(o, v);
    default: return decimal(o, v, digits_of(v));
    }
}

/* The octets of a cell's text in a row, -1 where it lies outside its memory. A string's last NULs are no part of it. */
static inline int64_t place(const ut_cell *c, int64_t row, const uint8_t **at) {
    uint64_t which = c->values ? held(c, row) : (uint64_t)row;
    if (which >= (uint64_t)c->n_texts) return -1;
    int64_t start = c->starts[which], n = c->lengths ? c->lengths[which] : c->starts[which + 1] - start;
    if (!ut_within(start, n, c->size)) return -1;
    *at = c->data + start;
    if (c->form == JSON || c->form == PLAIN) while (n && (*at)[n - 1] == 0) n--;
    return n;
}

/* The octets that a row has room in, besides those of its texts; -1 where a cell lies outside its memory. */
static int64_t room_of_row(const ut_cell *cells, int64_t n_cells, int64_t texts_octets, int64_t rows) {
    int64_t sum = SLACK;
    for (int64_t k = 0; k < n_cells; k++) {
        const ut_cell *c = cells + k;
        int64_t width = c->kind == IPV6 ? 16 : c->width;
        int usual = width == 1 || width == 2 || width == 4 || width == 8;
        if (!ut_within(c->text, c->text_octets, texts_octets) || c->others < 0 || c->others >= n_cells - k) return -1;
        if ((c->missing && c->masked < rows) || c->kind > TEXTS || c->form > (c->kind == HEXADECIMAL ? 16 : COLONS)) return -1;
        if (c->kind != NOTHING && (c->kind != TEXTS || c->values)) {
            if (!(usual || c->kind == IPV6) || (c->step && c->step != width)) return -1;
            if (!ut_within((rows - 1) * c->step, width, c->held)) return -1;
        }
        sum += c->text_octets + WIDEST + 3;
    }
    return sum;
}

/* Rows from `first` on to `out`, as many as there is room for; `ends`, if any, gets where each of them ends in `out`.
   A field that is missing in a row is left out with its `others`, and has `separator` in front only behind another one.
   Returns the rows, and their octets in *written; -1: something lies outside its memory. */
int64_t ut_rows(const ut_cell *cells, int64_t n_cells, const uint8_t *texts, int64_t texts_octets, uint8_t separator,
                int64_t first, int64_t rows, uint8_t *out, int64_t room, int64_t *ends, int64_t *written) {
    int64_t needed = room_of_row(cells, n_cells, texts_octets, rows), row = first;
    uint8_t *o = out, *whole = out;
    if (needed < 0 || first < 0) return -1;
    for (; row < rows && room - (o - out) >= needed; row++) {
        int some = 0;
        for (int64_t k = 0; k < n_cells; k++) {
            const ut_cell *c = cells + k;
            const uint8_t *p = 0;
            if (c->missing && c->missing[row]) { k += c->others; continue; }
            if (c->separated) { if (some) *o++ = separator; some = 1; }
            o = copied(o, texts + c->text, c->text_octets);
            if (c->kind == NOTHING) continue;
            if (c->quote) *o++ = c->quote;
            if (c->kind == TEXTS) {
                int64_t n = place(c, row, &p);
                if (n < 0) return -1;
                if (n > (room - (o - out) - needed) / MOST_FOR_ONE[c->form]) goto full;
                o = text(o, p, n, c->form);
            } else o = value(o, c, row);
            if (c->quote) *o++ = c->quote;
        }
        whole = o;
        if (ends) ends[row] = o - out;
    }
full:
    *written = whole - out;
    return row - first;
}
