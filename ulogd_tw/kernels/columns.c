/* Records to columns: one loop for each field over a block of records that stays in the first cache. */
#include "octets.h"
#include "kernels.h"

enum { UNSIGNED, SIGNED, FLOAT, OCTETS, PAIR };    /* kinds of a field; PAIR: 16 octets as two numbers, high one first */
enum { BLOCK = 256 };

#define STORE(type, value) do { type *to = (type *)out + row; \
    for (int64_t i = 0; i < n; i++) { const uint8_t *p = PLACE(i); to[i] = (type)(value); } } while (0)
#define PLACE(i) (memory + (bases ? bases[i] : (i) * step))

static inline uint64_t number(const uint8_t *p, int length, int is_signed) {
    uint64_t v = ut_number(p, length);
    if (is_signed && length < 8) v = (uint64_t)((int64_t)(v << (64 - 8 * length)) >> (64 - 8 * length));
    return v;
}

static inline double real(const uint8_t *p, int length) {
    if (length == 4) { uint32_t b = ut_32(p); float f; memcpy(&f, &b, 4); return f; }
    uint64_t b = ut_64(p); double d; memcpy(&d, &b, 8); return d;
}

/* One field of `n` records to rows from `row` on of its column. Record i lies at bases[i], or at i * step without bases;
   inlined, so that each way has loops of its own. */
static inline __attribute__((always_inline)) void read_field(const ut_field *f, const uint8_t *memory,
        const int64_t *bases, int64_t step, int64_t n, uint8_t *out, int64_t row) {
    int length = f->length, is_signed = f->kind == SIGNED;
    memory += f->at;
    if (f->kind == OCTETS) {
        for (int64_t i = 0; i < n; i++) memcpy(out + (row + i) * length, PLACE(i), length);
    } else if (f->kind == PAIR) {
        uint64_t *to = (uint64_t *)out + 2 * row;
        for (int64_t i = 0; i < n; i++) { to[2 * i] = ut_64(PLACE(i)); to[2 * i + 1] = ut_64(PLACE(i) + 8); }
    } else if (f->kind == FLOAT) {
        if (f->width == 4) STORE(uint32_t, ut_32(p)); else STORE(double, real(p, length));
    } else if (length == f->width) {
        switch (length) {
        case 1: STORE(uint8_t, p[0]); break;
        case 2: STORE(uint16_t, ut_16(p)); break;
        case 4: STORE(uint32_t, ut_32(p)); break;
        default: STORE(uint64_t, ut_64(p));
        }
    } else {
        switch (f->width) {
        case 2: STORE(uint16_t, number(p, length, is_signed)); break;
        case 4: STORE(uint32_t, number(p, length, is_signed)); break;
        default: STORE(uint64_t, number(p, length, is_signed));
        }
    }
}

/* Whether all fields lie in a run of so many octets, and their columns of so many rows in the memory for them. */
static int sound(const ut_field *fields, int64_t n_fields, int64_t octets, int64_t rows, int64_t room) {
    for (int64_t i = 0; i < n_fields; i++) {
        const ut_field *f = fields + i;
        int64_t held = f->kind == OCTETS ? f->length : f->kind == PAIR ? 16 : f->width;
        int number = f->kind == UNSIGNED || f->kind == SIGNED;
        if (!ut_within(f->at, f->length, octets) || f->out % 8 || (held && rows > INT64_MAX / held)) return 0;
        if (!ut_within(f->out, held * rows, room)) return 0;
        if (f->kind > PAIR || (f->kind == PAIR && f->length != 16)) return 0;
        if (f->kind == FLOAT && !((f->length == 4 && f->width == 4) || (f->width == 8 && (f->length == 4 || f->length == 8))))
            return 0;
        if (number && (f->length < 1 || f->length > f->width || (f->width & (f->width - 1)) || f->width > 8)) return 0;
    }
    return 1;
}

/* Records of `octets` octets: counts[i] of them one after another from starts[i] on, `rows` in all. Returns the rows
   that were written; -1 where something lies outside its memory. */
int64_t ut_fixed(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *counts, int64_t n,
                 int64_t octets, const ut_field *fields, int64_t n_fields, uint8_t *out, int64_t room, int64_t rows) {
    int64_t row = 0;
    if (octets < 1 || rows < 0 || !sound(fields, n_fields, octets, rows, room)) return -1;
    for (int64_t i = 0; i < n; i++) {
        if (counts[i] < 0 || counts[i] > rows - row || counts[i] > size / octets) return -1;
        if (!ut_within(starts[i], counts[i] * octets, size)) return -1;
        for (int64_t at = 0; at < counts[i]; at += BLOCK) {
            int64_t some = counts[i] - at < BLOCK ? counts[i] - at : BLOCK;
            const uint8_t *p = memory + starts[i] + at * octets;
            for (int64_t f = 0; f < n_fields; f++)
                read_field(fields + f, p, 0, octets, some, out + fields[f].out, row + at);
        }
        row += counts[i];
    }
    return row;
}

/* Runs of `octets` octets at bases[i], one for each row. */
int64_t ut_located(const uint8_t *memory, int64_t size, const int64_t *bases, int64_t rows, int64_t octets,
                   const ut_field *fields, int64_t n_fields, uint8_t *out, int64_t room) {
    if (octets < 0 || rows < 0 || !sound(fields, n_fields, octets, rows, room)) return -1;
    for (int64_t i = 0; i < rows; i++)
        if (!ut_within(bases[i], octets, size)) return -1;
    for (int64_t row = 0; row < rows; row += BLOCK) {
        int64_t some = rows - row < BLOCK ? rows - row : BLOCK;
        for (int64_t f = 0; f < n_fields; f++)
            read_field(fields + f, memory, bases + row, 0, some, out + fields[f].out, row);
    }
    return rows;
}

/* The records of variable length in bodies [starts[i], ends[i]), at most `most`. counts[i] gets how many a body has,
   cut[i] whether its last one is cut by the end (it is left out). `out` has 1 + 2 * n_segments arrays of `most` numbers:
   where each record begins, and for each value where it begins and its octets. Returns the records; -1: no room. */
int64_t ut_locate(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *ends, int64_t n,
                  const ut_segment *segments, int64_t n_segments, int64_t tail, int64_t least, int64_t most,
                  int64_t *counts, uint8_t *cut, int64_t *out) {
    int64_t row = 0;
    if (least < 1) return -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = starts[i], end = ends[i], first = row;
        if (!ut_within(at, end - at, size)) return -1;
        cut[i] = 0;
        while (end - at >= least) {
            if (row == most) return -1;
            int64_t *to = out + row;
            *to = at;
            for (int64_t s = 0; s < n_segments && !cut[i]; s++) {
                at += segments[s].skip;
                int64_t length = memory[at++];
                if (length == 255) {
                    if (end - at < 2) { cut[i] = 1; break; }
                    length = ut_16(memory + at);
                    at += 2;
                }
                to += most; *to = at;
                to += most; *to = length;
                at += length;
                cut[i] = at + segments[s].rest > end;
            }
            if (cut[i]) break;
            at += tail;
            row++;
        }
        counts[i] = row - first;
    }
    return row;
}

/* Octet strings: offsets[i + 1] - offsets[i] octets from starts[i] on to offsets[i] in `out`. */
int64_t ut_strings(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *offsets, int64_t n,
                   uint8_t *out, int64_t room) {
    for (int64_t i = 0; i < n; i++) {
        int64_t length = offsets[i + 1] - offsets[i];
        if (!ut_within(offsets[i], length, room) || !ut_within(starts[i], length, size)) return -1;
        memcpy(out + offsets[i], memory + starts[i], length);
    }
    return n;
}

/* Copies strings of the memory to places of their own. How many strings; -1 where one lies outside. */
int64_t ut_scatter(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *lengths, int64_t n,
                   uint8_t *out, int64_t room, const int64_t *to) {
    for (int64_t i = 0; i < n; i++) {
        if (!lengths[i]) continue;  // an empty string may lie anywhere
        if (!ut_within(to[i], lengths[i], room) || !ut_within(starts[i], lengths[i], size)) return -1;
        memcpy(out + to[i], memory + starts[i], lengths[i]);
    }
    return n;
}
