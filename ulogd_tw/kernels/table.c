/* Keys to entries of an open-addressing table, and the sums of entries. The table is that of core/key_table.py: the same
   hash, the same slots, the same rows of words; its index grows and moves in Python. */
#include "octets.h"
#include "kernels.h"

enum { BLOCK = 64 };
enum { UT_GROW = 1, UT_CROWDED = 2 };

static const uint64_t BETWEEN = 0x9E3779B97F4A7C15ull, FINISH = 0xD6E8FEB86659FD93ull;

static inline uint64_t slot_at(const ut_table *t, const uint8_t *index, int64_t slot) {
    if (t->slot_octets == 4) return ((const uint32_t *)index)[slot];
    return ((const uint64_t *)index)[slot];
}

static inline void put_at(const ut_table *t, uint8_t *index, int64_t slot, uint64_t value) {
    if (t->slot_octets == 4) ((uint32_t *)index)[slot] = (uint32_t)value;
    else ((uint64_t *)index)[slot] = value;
}

static inline uint64_t hash(const ut_table *t, const uint64_t *const *words, int64_t row) {
    uint64_t h = (words[0][row] ^ t->seed) * t->factors[0];
    for (int64_t w = 1; w < t->words; w++) {
        h ^= h >> 32;
        h *= BETWEEN;
        h += words[w][row] * t->factors[w];
    }
    h ^= h >> 32;
    h *= FINISH;
    return h ^ h >> 32;
}

static inline int is_key(const ut_table *t, int64_t entry, const uint64_t *const *words, int64_t row) {
    const uint64_t *there = t->flat + entry * t->stride;
    for (int64_t w = 0; w < t->words; w++)
        if (there[w] != words[w][row]) return 0;
    return 1;
}

/* The entry of a key in one index; 0: not there, `*slot` is then its future slot; -1: no slot within reach. */
static int64_t find(const ut_table *t, const uint8_t *index, int64_t mask, uint64_t tag, const uint64_t *const *words,
                    int64_t row, uint64_t h, int64_t *slot) {
    for (int64_t distance = 0; distance < t->reach; distance++) {
        *slot = (int64_t)(h + (uint64_t)distance) & mask;
        uint64_t held = slot_at(t, index, *slot);
        if (!held) return 0;
        if ((held ^ tag) > t->low) continue;
        int64_t entry = (int64_t)(held & t->low);
        if (entry && entry <= t->n && is_key(t, entry, words, row)) return entry;
    }
    return -1;
}

static uint64_t tag_of(const ut_table *t, uint64_t h) {
    return (t->slot_octets == 4 ? (uint32_t)(h >> 32) : h) & ~t->low & (t->slot_octets == 4 ? 0xFFFFFFFFull : ~0ull);
}

/* The entries of rows [first, rows): new keys get new ones while there are fewer than `limit`, else 0. Returns the row
   that was not reached, with the reason in `t->stopped`: UT_GROW (the index is half full) or UT_CROWDED. */
int64_t ut_entries(ut_table *t, const uint64_t *const *words, int64_t first, int64_t rows, int64_t limit, int64_t *out) {
    uint64_t hashes[BLOCK];
    t->stopped = 0;
    if (limit > t->capacity) limit = t->capacity;
    for (int64_t at = first; at < rows; at += BLOCK) {
        int64_t some = rows - at < BLOCK ? rows - at : BLOCK;
        for (int64_t i = 0; i < some; i++) {
            hashes[i] = hash(t, words, at + i);
            __builtin_prefetch(t->index + ((int64_t)hashes[i] & t->mask) * t->slot_octets, 1);
        }
        for (int64_t i = 0; i < some; i++) {
            int64_t entry = (int64_t)(slot_at(t, t->index, (int64_t)hashes[i] & t->mask) & t->low);
            if (entry && entry <= t->n) __builtin_prefetch(t->flat + entry * t->stride, 1);
        }
        for (int64_t i = 0; i < some; i++) {
            int64_t slot, other, row = at + i;
            uint64_t tag = tag_of(t, hashes[i]);
            int64_t entry = find(t, t->index, t->mask, tag, words, row, hashes[i], &slot);
            if (entry == 0 && t->old)
                if ((entry = find(t, t->old, t->old_mask, tag, words, row, hashes[i], &other)) < 0) entry = 0;
            if (entry < 0) { t->stopped = UT_CROWDED; return row; }
            if (!entry && t->n < limit) {
                if (2 * (t->n + 1) > t->mask + 1) { t->stopped = UT_GROW; return row; }
                entry = ++t->n;
                for (int64_t w = 0; w < t->words; w++) t->flat[entry * t->stride + w] = words[w][row];
                put_at(t, t->index, slot, tag | (uint64_t)entry);
            }
            out[row] = entry;
        }
    }
    return rows;
}

static const uint64_t SAFE = UINT64_MAX >> 1;   /* a sum below it is far from its limit */

/* Whether no sum can pass its limit by these rows; the bound of the sums is raised then. */
static int bounded(ut_sum *s, int64_t rows) {
    uint64_t most = s->values ? 0 : 1;
    if (s->kind != 0 || !rows) return 1;
    if (s->values)
        for (int64_t i = 0; i < rows; i++) most = s->values[i] > most ? s->values[i] : most;
    if (s->bound > SAFE || most > (SAFE - s->bound) / (uint64_t)rows) return 0;
    s->bound += most * (uint64_t)rows;
    return 1;
}

/* Add to the sums of entries: `what` says which word of an entry, how, and with which numbers. 1: done. 0: nothing was
   done, since a sum might pass the limit of 64 bits. -1: an entry is none of the table. */
int64_t ut_add(uint64_t *flat, int64_t size, int64_t stride, int64_t n, const int64_t *entries, int64_t rows,
               ut_sum *what, int64_t sums) {
    if (n < 0 || stride < 1 || n > size / stride - 1) return -1;
    for (int64_t s = 0; s < sums; s++)
        if (what[s].place < 0 || what[s].place >= stride) return -1;
    for (int64_t i = 0; i < rows; i++)
        if (entries[i] < 1 || entries[i] > n) return -1;
    for (int64_t s = 0; s < sums; s++)
        if (!bounded(what + s, rows)) return 0;
    for (int64_t i = 0; i < rows; i++) {
        uint64_t *to = flat + entries[i] * stride;
        for (int64_t s = 0; s < sums; s++) {
            uint64_t value = what[s].values ? what[s].values[i] : 1, *sum = to + what[s].place;
            if (what[s].kind == 0) *sum += value;
            else if (what[s].kind == 1) *sum = value < *sum ? value : *sum;
            else *sum = value > *sum ? value : *sum;
        }
    }
    return 1;
}
