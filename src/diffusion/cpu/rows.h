/* rows.h - a kernel's memory, what it reads next, and rows of weights as floats, a few at a time. */
#ifndef MYSTI_DIFFUSION_CPU_ROWS_H
#define MYSTI_DIFFUSION_CPU_ROWS_H

#include "diffusion/cpu/kernels.h"

#include <stdlib.h>
#include <string.h>

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Where a matrix has number `from` of a row, the first of a block; and how many bytes n numbers from there on take. */
static inline const void *matrix_at(const cpu_matrix *m, int64_t row, int64_t from) {
    return (const char *)m->data + (size_t)row * m->row_bytes + (size_t)(from / m->block) * m->block_bytes;
}
static inline int64_t matrix_bytes(const cpu_matrix *m, int64_t n) {
    return n / m->block * (int64_t)m->block_bytes;
}

/* Has `bytes` bytes come to the second-level cache, to be read or to be written. */
static inline void fetch_ahead(const void *from, int64_t bytes) {
    enum { LINE = 64 };
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)from + i, 0, 2);
}
static inline void fetch_to_write(const void *to, int64_t bytes) {
    enum { LINE = 64 };
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)to + i, 1, 2);
}

/* `count` numbers of a picture's row y, from column x on and c->stride apart; 0 outside of the picture. */
static inline void copy_under(const cpu_conv *c, const float *plane, int64_t y, int64_t x, int64_t count, float *to) {
    int64_t i = 0, end = 0; /* what lies inside */
    if (y >= 0 && y < c->h && x < c->w) {
        if (x < 0) i = (c->stride - 1 - x) / c->stride;
        end = (c->w - 1 - x) / c->stride + 1;
    }
    if (end > count) end = count;
    if (i > end) i = end;
    memset(to, 0, (size_t)i * sizeof *to);
    memset(to + end, 0, (size_t)(count - end) * sizeof *to);
    if (i == end) return;
    const float *from = plane + y * c->w + x;
    if (c->stride == 1)
        memcpy(to + i, from + i, (size_t)(end - i) * sizeof *to);
    else
        for (; i < end; i++) to[i] = from[i * c->stride];
}

/* Memory for a kernel, from the first cache line on. Without memory it aborts, as base does: it is a megabyte or so. */
typedef struct cpu_room {
    void *memory;
    float *floats;
} cpu_room;

static inline cpu_room cpu_room_open(int64_t floats) {
    enum { LINE = 64 };
    cpu_room r = {.memory = malloc((size_t)floats * sizeof(float) + LINE)};
    if (!r.memory) abort();
    r.floats = (float *)(void *)((char *)r.memory + (LINE - (uintptr_t)r.memory % LINE));
    return r;
}

static inline void cpu_room_close(cpu_room *r) {
    free(r->memory);
}

/* Room for `rows` rows of what is to be kept, in floats, if they are copied. */
static inline int64_t copied_floats(const cpu_keep *k, int64_t rows) {
    return k->copy ? (rows * (int64_t)k->weight.row_bytes + 3) / 4 : 0;
}

/* Rows first ... first + count - 1 of what is to be kept, of `all`; those beyond are not there. room: copied_floats().
 */
static inline const char *rows_to_keep(const cpu_keep *k, int64_t first, int64_t count, int64_t all, void *room) {
    if (!k->copy) return matrix_at(&k->weight, first, 0);
    const int64_t rows = all - first < count ? all - first : count;
    const size_t bytes = k->weight.row_bytes;
    if (rows > 0) k->copy(k->source, (size_t)first * bytes, (size_t)rows * bytes, room);
    return room;
}

/* Holds the numbers of the last call. */
typedef struct row_reader {
    const cpu_matrix *m;
    cpu_room room; /* [rows][depth] */
    int64_t depth;
} row_reader;

/* Borrows m. For at most `rows` rows of `depth` numbers at once. */
static inline row_reader row_reader_open(const cpu_matrix *m, int64_t rows, int64_t depth) {
    return (row_reader){m, cpu_room_open(m->to_floats ? rows * depth : 0), depth};
}

static inline void row_reader_close(row_reader *r) {
    cpu_room_close(&r->room);
}

/* Numbers from ... from + depth - 1 of `count` rows; `*row` is how far apart the rows lie. Valid until the next call.
 */
static inline const float *rows_read(row_reader *r, int64_t first, int64_t count, int64_t from, int64_t depth,
                                     int64_t *row) {
    const cpu_matrix *m = r->m;
    if (!m->to_floats) {
        *row = (int64_t)(m->row_bytes / sizeof(float));
        return matrix_at(m, first, from);
    }
    for (int64_t i = 0; i < count; i++)
        m->to_floats(matrix_at(m, first + i, from), r->room.floats + i * r->depth, depth);
    *row = r->depth;
    return r->room.floats;
}

#endif
