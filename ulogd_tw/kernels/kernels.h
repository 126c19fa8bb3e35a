/* What Python sees of the kernels: read by the compiler and, as it stands, by cffi (no preprocessor lines).
   All memory is the caller's; every pointer comes with the number of its elements or octets. */

/* walk.c: Messages of IPFIX, NetFlow v9 and v5 to runs of records */

typedef struct {
    uint32_t session, domain, version_set; /* the key: numbers of the session and the domain, version << 16 | Set ID */
    uint32_t group;                        /* number of the domain among all that were ever put in */
    uint32_t octets;                       /* of a record; 0 where it varies */
    uint32_t least;                        /* octets of the smallest record */
    uint32_t segment, segments, tail;      /* where it varies: its place in `segments`, how many, octets after the last */
    uint32_t live;
    uint32_t call;                         /* of the last walk that met it; what follows is of this walk */
    int32_t first, last;                   /* its runs */
    int64_t rows, body;                    /* records, and octets of them */
    int32_t runs;
} ut_template;

typedef struct {
    uint32_t call;
    int32_t place;                         /* of its first Message */
    int32_t messages;
    uint32_t first_number, first_rows;     /* Sequence Number and records (packets for v9) of its first Message */
    uint32_t number, next;                 /* of its last Message, and what has to follow */
    uint32_t first_exported, exported;     /* Export Times of the first and the last Message, s */
    uint32_t first_uptime, uptime;         /* ms; NetFlow only */
    uint32_t sampling;                     /* the field of v5's header */
    int64_t rows, octets;
    int32_t template_;                     /* one of its templates */
} ut_domain;

typedef struct {
    int64_t start;                         /* where the records begin in the memory */
    int64_t octets;                        /* of whole records, without padding */
    int64_t rows;
    uint32_t exported, uptime, nanoseconds;
    int32_t next;                          /* the next run of the template; -1: none */
} ut_run;

typedef struct {
    uint32_t skip, rest;                   /* octets of fixed fields before the length, least octets after the value */
} ut_segment;

typedef struct {
    ut_template *templates;
    int64_t most_templates, n_templates;
    int32_t *index;                        /* open addressing: a template's place + 1, 0: free */
    int64_t index_mask;
    ut_segment *segments;
    int64_t n_segments;
    ut_domain *domains;
    int64_t n_domains;
    uint32_t call;
    uint32_t same_uptime;                  /* ms by which an uptime and the clock may differ */
    int32_t *met_templates;                /* those of this walk, in the order of their first records */
    int64_t n_met_templates;
    int32_t *met_domains;
    int64_t n_met_domains;
    ut_run *runs;
    int64_t most_runs, n_runs;
} ut_walk;

int ut_put(ut_walk *w, int64_t place);
int64_t ut_messages(ut_walk *w, const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *lengths,
                    const uint32_t *sessions, int64_t first, int64_t end);
int64_t ut_bodies(const ut_walk *w, const uint8_t *memory, int64_t size, const int32_t *order, int64_t n, int64_t before,
                  uint8_t *out, int64_t room, int64_t *sources, int64_t most_sources);

/* columns.c: records to columns */

typedef struct {
    uint32_t at;                           /* octets after the beginning of its run of fixed fields */
    uint16_t length;                       /* on the wire */
    uint8_t kind;                          /* UT_UNSIGNED ... */
    uint8_t width;                         /* octets of a held value */
    int64_t out;                           /* where its column begins in the memory for columns */
} ut_field;

int64_t ut_fixed(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *counts, int64_t n,
                 int64_t octets, const ut_field *fields, int64_t n_fields, uint8_t *out, int64_t room, int64_t rows);
int64_t ut_located(const uint8_t *memory, int64_t size, const int64_t *bases, int64_t rows, int64_t octets,
                   const ut_field *fields, int64_t n_fields, uint8_t *out, int64_t room);
int64_t ut_locate(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *ends, int64_t n,
                  const ut_segment *segments, int64_t n_segments, int64_t tail, int64_t least, int64_t most,
                  int64_t *counts, uint8_t *cut, int64_t *out);
int64_t ut_strings(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *offsets, int64_t n,
                   uint8_t *out, int64_t room);
int64_t ut_scatter(const uint8_t *memory, int64_t size, const int64_t *starts, const int64_t *lengths, int64_t n,
                   uint8_t *out, int64_t room, const int64_t *to);

/* rows.c: rows of columns to lines of text */

typedef struct {
    int64_t text, text_octets;             /* what stands in front of the value, in the texts of the lines */
    const uint8_t *missing;                /* not 0 for rows without its field, in the field's first cell; may be NULL */
    int64_t masked;                        /* octets there */
    int64_t others;                        /* the other cells of its field, in a field's first cell */
    uint8_t separated;                     /* whether a separator may have to be in front */
    uint8_t quote;                         /* the octet on either side of the value, or 0 */
    uint8_t kind, form;                    /* form: of a text, or least digits of a hexadecimal number */
    uint8_t width, step;                   /* octets of a number, and from one to the next (0: the same in all rows) */
    const uint8_t *values;                 /* numbers; for texts which one a row has (NULL: the one of its number) */
    int64_t held;                          /* octets there */
    const uint8_t *data;                   /* of texts */
    int64_t size;                          /* octets there */
    const int64_t *starts;                 /* where texts begin in the data */
    const int64_t *lengths;                /* NULL: up to the next start, of which there is one more */
    int64_t n_texts;
} ut_cell;

int64_t ut_rows(const ut_cell *cells, int64_t n_cells, const uint8_t *texts, int64_t texts_octets, uint8_t separator,
                int64_t first, int64_t rows, uint8_t *out, int64_t room, int64_t *ends, int64_t *written);

/* table.c: keys to entries, and their sums */

typedef struct {
    uint8_t *index, *old;                  /* slots of 4 or 8 octets; `old`: entries that have not moved yet, or none */
    int64_t mask, old_mask, slot_octets;
    uint64_t low, seed;                    /* the bits of a slot with the number of an entry */
    const uint64_t *factors;
    uint64_t *flat;                        /* entries of `stride` words, from 0 to `capacity`; the key comes first */
    int64_t stride, words, capacity, n, reach;
    int64_t stopped;                       /* why not all rows were reached: UT_GROW, UT_CROWDED */
} ut_table;

typedef struct {
    int64_t place;                         /* of the sum in an entry */
    int64_t kind;                          /* 0: add; 1: the least; 2: the greatest */
    uint64_t bound;                        /* no sum of the table is beyond it */
    const uint64_t *values;                /* one a row; none: 1 */
} ut_sum;

int64_t ut_entries(ut_table *t, const uint64_t *const *words, int64_t first, int64_t rows, int64_t limit, int64_t *out);
int64_t ut_add(uint64_t *flat, int64_t size, int64_t stride, int64_t n, const int64_t *entries, int64_t rows,
               ut_sum *what, int64_t sums);

/* packets.c: records of captures, headers of packets */

int64_t ut_records(const uint8_t *memory, int64_t size, int64_t at, int64_t place, int big_endian, int64_t more,
                   int64_t least, int64_t *found, int64_t room);

typedef struct {
    const uint8_t *memory;
    int64_t size;
    int64_t *at, *end;                     /* of each packet the next place to read, and its end */
    int32_t *kind;                         /* EtherType of what is there, or 0 */
    uint8_t *fault;                        /* the first one found: 1, the octets end within a header; 2, it cannot be */
    int64_t n;
} ut_packets;

int64_t ut_links(ut_packets *w, const int64_t *first, const uint8_t *others, uint8_t *odd);
int64_t ut_families(ut_packets *w, uint8_t *family);
int64_t ut_ipv4(ut_packets *w, const int64_t *rows, int64_t n, int32_t *protocol);
int64_t ut_transport(ut_packets *w, const int64_t *rows, int64_t n, const int32_t *protocol, const int64_t *least);

/* netlink.c: messages of datagrams, their layouts and values */

typedef struct {
    uint32_t word, factor;                 /* a 32-bit word of a message, and what it is multiplied with */
    uint32_t beyond;                       /* not 0: only where the second attribute is the text, and longer than this */
} ut_hashed;

typedef struct {
    const uint64_t *expected, *mask;       /* of each layout `wide` words of 64 bits; number 0 is none */
    int64_t wide, layouts;
    int64_t compared;                      /* words of a message that are compared */
    const int64_t *first, *next;           /* layouts to try: first of a bucket, next after another; 0: no more */
    int64_t buckets;
    const int64_t *open_at;                /* of each layout, its last attribute's header; 0: its length is fixed */
    const ut_hashed *hashed;               /* what chooses the bucket */
    int64_t n_hashed;
    uint32_t text;                         /* type of the attribute with a text that belongs to the layout */
} ut_layouts;

int64_t ut_datagrams(const uint8_t *memory, int64_t size, const int64_t *ends, int64_t n, int64_t *starts,
                     int64_t *lengths, int64_t room, int64_t *broken);
int64_t ut_match(const ut_layouts *l, const uint8_t *memory, int64_t size, const int64_t *starts,
                 const int64_t *lengths, int64_t n, int64_t *ids);
int64_t ut_values(const uint8_t *memory, int64_t size, const int64_t *bases, const int64_t *ids, int64_t n,
                  const int64_t *words, int64_t layouts, int64_t of_64, int64_t of_32, int64_t of_16, int64_t of_8,
                  uint8_t *out, int64_t room);

/* rest.c: looks at the buffer of a socket that is left alone */

int64_t ut_rest(int32_t events, int32_t descriptor, int64_t buffer, int64_t room, int64_t left, int64_t due);
