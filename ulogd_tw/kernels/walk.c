/* Messages in memory, walked Set by Set: runs of records of known templates, for many sessions in one call.

   `ut_messages` has no effect outside `ut_walk`: the caller looks at what it met, and may throw it away. It ends before
   the first Message with anything but Data Sets of templates that were put in, in one sequence for each domain. */
#include "octets.h"
#include "kernels.h"

enum { IPFIX = 10, V9 = 9, V5 = 5, FIRST_DATA_SET = 256, MOST_SETS = 64 };

typedef struct { int32_t template_; int64_t start, octets, rows; } found_set;

static uint32_t hash(uint32_t session, uint32_t domain, uint32_t version_set) {
    uint64_t x = (uint64_t)session << 32 | domain;
    x = (x ^ x >> 31) * 0x9E3779B97F4A7C15ull;
    x ^= version_set;
    x = (x ^ x >> 29) * 0xD6E8FEB86659FD93ull;
    return (uint32_t)(x >> 32);
}

/* Put the template at this place into the index. 0: there is no room. */
int ut_put(ut_walk *w, int64_t place) {
    if (place < 0 || place >= w->n_templates || 2 * w->n_templates > w->index_mask + 1) return 0;
    const ut_template *t = w->templates + place;
    int64_t at = hash(t->session, t->domain, t->version_set) & w->index_mask;
    while (w->index[at]) at = (at + 1) & w->index_mask;
    w->index[at] = (int32_t)place + 1;
    return 1;
}

static int32_t find(const ut_walk *w, uint32_t session, uint32_t domain, uint32_t version_set) {
    int64_t at = hash(session, domain, version_set) & w->index_mask;
    for (int32_t place; (place = w->index[at]); at = (at + 1) & w->index_mask) {
        const ut_template *t = w->templates + place - 1;
        if (t->live && t->session == session && t->domain == domain && t->version_set == version_set) return place - 1;
    }
    return -1;
}

/* Records of variable length in [at, end): how many, and where the last one ends; -1 where one is cut. */
static int64_t varying(const ut_walk *w, const ut_template *t, const uint8_t *p, int64_t at, int64_t end, int64_t *last) {
    const ut_segment *s = w->segments + t->segment;
    int64_t rows = 0;
    if (!t->least || !ut_within(t->segment, t->segments, w->n_segments)) return -1;
    while (end - at >= t->least) {
        for (uint32_t i = 0; i < t->segments; i++) {
            at += s[i].skip;
            int64_t length = p[at++];
            if (length == 255) {
                if (end - at < 2) return -1;
                length = ut_16(p + at);
                at += 2;
            }
            at += length;
            if (at + s[i].rest > end) return -1;
        }
        at += t->tail;
        rows++;
    }
    *last = at;
    return rows;
}

/* One Data Set with its body in [at, end). 0 where it is not what can be taken. */
static int data_set(const ut_walk *w, const uint8_t *memory, int32_t template_, int64_t at, int64_t end, found_set *found) {
    const ut_template *t = w->templates + template_;
    int64_t last = at, rows;
    if (t->octets) {
        rows = (end - at) / t->octets;
        last = at + rows * t->octets;
    } else if ((rows = varying(w, t, memory, at, end, &last)) < 0) {
        return 0;
    }
    *found = (found_set){template_, at, last - at, rows};
    return 1;
}

/* The Sets of one Message in [at, end); how many, -1 where one cannot be taken. */
static int sets(const ut_walk *w, const uint8_t *memory, int64_t at, int64_t end, uint32_t session, uint32_t domain,
                uint32_t version, found_set *found) {
    int n = 0;
    while (at < end) {
        if (end - at < 4 || n == MOST_SETS) return -1;
        uint32_t ident = ut_16(memory + at), length = ut_16(memory + at + 2);
        if (ident < FIRST_DATA_SET || length < 4 || length > end - at) return -1;
        int32_t t = find(w, session, domain, version << 16 | ident);
        if (t < 0 || !data_set(w, memory, t, at + 4, at + length, found + n++)) return -1;
        at += length;
    }
    return n;
}

typedef struct { uint32_t domain, number, exported, uptime, nanoseconds, sampling; int64_t begin; } header;

/* Read the header of a Message of `length` octets; its version, 0 where it is none of ours. */
static uint32_t read_header(const uint8_t *p, int64_t length, header *h) {
    uint32_t version = length >= 2 ? ut_16(p) : 0;
    *h = (header){0};
    if (version == IPFIX && length >= 20 && ut_16(p + 2) == length) {
        h->exported = ut_32(p + 4); h->number = ut_32(p + 8); h->domain = ut_32(p + 12); h->begin = 16;
    } else if (version == V9 && length >= 24) {
        h->uptime = ut_32(p + 4); h->exported = ut_32(p + 8); h->number = ut_32(p + 12); h->domain = ut_32(p + 16);
        h->begin = 20;
    } else if (version == V5 && length >= 24 + 48 && 24 + 48 * (int64_t)ut_16(p + 2) == length) {
        h->uptime = ut_32(p + 4); h->exported = ut_32(p + 8); h->nanoseconds = ut_32(p + 12); h->number = ut_32(p + 16);
        h->domain = ut_16(p + 20); h->sampling = ut_16(p + 22); h->begin = 24;
    } else {
        return 0;
    }
    return version;
}

/* Whether a Message goes on from the one before it in this walk. */
static int goes_on(const ut_walk *w, const ut_domain *d, uint32_t version, const header *h) {
    if (d->next != h->number || d->sampling != h->sampling) return 0;
    if (version != V9) return 1;
    uint32_t off = h->uptime - d->uptime - (h->exported - d->exported) * 1000u + w->same_uptime;
    return off <= 2 * w->same_uptime;
}

static void add_run(ut_walk *w, const found_set *s, const header *h) {
    ut_template *t = w->templates + s->template_;
    int32_t place = (int32_t)w->n_runs++;
    w->runs[place] = (ut_run){s->start, s->octets, s->rows, h->exported, h->uptime, h->nanoseconds, -1};
    if (t->call != w->call) {
        t->call = w->call; t->first = place; t->rows = t->body = 0; t->runs = 0;
        w->met_templates[w->n_met_templates++] = s->template_;
    } else {
        w->runs[t->last].next = place;
    }
    t->last = place; t->rows += s->rows; t->body += s->octets; t->runs++;
}

static void add_message(ut_walk *w, int32_t template_, uint32_t version, const header *h, int64_t place, int64_t length,
                        int64_t rows) {
    int32_t group = (int32_t)w->templates[template_].group;
    ut_domain *d = w->domains + group;
    uint32_t step = version == V9 ? 1 : (uint32_t)rows;
    if (d->call != w->call) {
        *d = (ut_domain){.call = w->call, .place = (int32_t)place, .first_number = h->number, .first_rows = step,
                         .first_exported = h->exported, .first_uptime = h->uptime, .sampling = h->sampling,
                         .template_ = template_};
        w->met_domains[w->n_met_domains++] = group;
    }
    d->messages++; d->number = h->number; d->next = h->number + step; d->exported = h->exported; d->uptime = h->uptime;
    d->rows += rows; d->octets += length;
}

/* Walk Messages [first, end): where each begins and how long it is, and the number of its session. Returns the place
   after the last one that was taken. */
int64_t ut_messages(ut_walk *w, const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *lengths,
                    const uint32_t *sessions, int64_t first, int64_t end) {
    found_set found[MOST_SETS];
    header h;
    w->call++;
    w->n_met_templates = w->n_met_domains = w->n_runs = 0;
    for (; first < end; first++) {
        int64_t length = lengths[first], rows = 0;
        if (!ut_within(starts[first], length, size)) return first;
        const uint8_t *p = memory + starts[first];
        uint32_t version = read_header(p, length, &h);
        int n = 1;
        if (version == V5) {
            int32_t t = find(w, sessions[first], h.domain, V5 << 16 | V5);
            if (t < 0 || !data_set(w, memory, t, starts[first] + h.begin, starts[first] + length, found)) return first;
        } else if (version) {
            n = sets(w, memory, starts[first] + h.begin, starts[first] + length, sessions[first], h.domain, version, found);
        }
        if (!version || n <= 0 || w->n_runs + n > w->most_runs) return first;
        const ut_domain *d = w->domains + w->templates[found[0].template_].group;
        if (d->call == w->call && !goes_on(w, d, version, &h)) return first;
        for (int i = 0; i < n; i++) {
            rows += found[i].rows;
            add_run(w, found + i, &h);
        }
        add_message(w, found[0].template_, version, &h, first, length, rows);
    }
    return first;
}

/* Copy the records of `n` templates in this order. `sources` gets seven numbers for each stretch of records with one
   header: template, place of its body, octets, rows, Export Time, uptime, nanoseconds. A body has `before` free octets in
   front, and has the records of one second. Returns the number of sources; -1 where there is no room. */
int64_t ut_bodies(const ut_walk *w, const uint8_t *memory, int64_t size, const int32_t *order, int64_t n, int64_t before,
                  uint8_t *out, int64_t room, int64_t *sources, int64_t most_sources) {
    int64_t at = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (order[i] < 0 || order[i] >= w->n_templates) return -1;
        const ut_template *t = w->templates + order[i];
        int64_t *source = 0;
        for (int32_t r = t->call == w->call ? t->first : -1; r >= 0; r = w->runs[r].next) {
            const ut_run *run = w->runs + r;
            if (!source || source[4] != run->exported || source[5] != run->uptime || source[6] != run->nanoseconds) {
                int64_t gap = !source || source[4] != run->exported ? before : 0;
                if (count == most_sources || !ut_within(at, gap, room)) return -1;
                source = sources + 7 * count++;
                source[0] = order[i]; source[1] = at; source[2] = gap; source[3] = 0;
                source[4] = run->exported; source[5] = run->uptime; source[6] = run->nanoseconds;
                at += gap;
            }
            if (!ut_within(at, run->octets, room) || !ut_within(run->start, run->octets, size)) return -1;
            memcpy(out + at, memory + run->start, run->octets);
            at += run->octets; source[2] += run->octets; source[3] += run->rows;
        }
    }
    return count;
}
