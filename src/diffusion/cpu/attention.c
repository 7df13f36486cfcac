/* attention.c - softmax(q k^T scale) v without ever holding all scores (Dao et al. 2022, "FlashAttention", algorithm
 * 1).
 *
 * A thread takes a head and a share of its queries. Keys lie ready as panels of COLUMNS keys, [cells of d][COLUMNS],
 * and values as [cells of keys][COLUMNS] for each COLUMNS of a head's numbers. QUERIES queries go past KEYS keys at a
 * time: there are their scores of those, the largest score so far, and sums and values that are scaled down whenever a
 * larger score comes. KEYS is several panels, so that looking for the largest and reading the sums again costs little
 * beside the products.
 *
 * With bfloat16 the operands of both products are rounded: queries, keys, values, and a key's weight. */
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

#include <math.h>

enum { QUERIES = 4 * ROWS, PANELS = 8, KEYS = PANELS * COLUMNS };

typedef struct head {
    const cpu_attention *p;
    int64_t width;  /* floats of a value's row: d filled up to whole vectors */
    int64_t across; /* those of them that a panel of values has, COLUMNS at most; all panels about as many */
    int64_t depth;  /* cells of a key, filled up likewise */
    int64_t panels; /* of keys */
    float scale;    /* of scores, which become exponents of 2 */
    float *lines;   /* [LANES][depth] */
    float *keys;    /* [panels][depth][COLUMNS] */
    float *values;  /* [width / across, rounded up][cells of panels * COLUMNS][COLUMNS] */
} head;

/* LANES keys from t on, of which those beyond the last are 0. k: the first key of all. */
static void load_keys(const head *h, const float *k, int64_t t) {
    const cpu_attention *p = h->p;
    float *panel = h->keys + t / COLUMNS * h->depth * COLUMNS + t % COLUMNS;
    for (int64_t i = 0; i < LANES; i++) {
        if (t + i < p->tk)
            pack_along(k + (t + i) * p->heads * p->d, p->d, h->lines + i * h->depth);
        else
            memset(h->lines + i * h->depth, 0, (size_t)h->depth * sizeof *h->lines);
    }
    for (int64_t cell = 0; cell < h->depth; cell += LANES) {
        vec m[LANES];
        for (int i = 0; i < LANES; i++) m[i] = load(h->lines + i * h->depth + cell);
        transpose(m);
        for (int i = 0; i < LANES; i++) store(panel + (cell + i) * COLUMNS, m[i]);
    }
}

/* Where numbers i ... of the values of keys t ... are. */
static float *values_at(const head *h, int64_t i, int64_t t) {
    return h->values + (i / h->across * h->panels * COLUMNS + t) / PAIR * COLUMNS;
}

/* The values of one cell of keys, from t on. v: those of the first key. */
static void load_values(const head *h, const float *v, int64_t t) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d, rows = p->tk - t < PAIR ? p->tk - t : PAIR;
    for (int64_t i = 0; i < h->width; i += h->across) {
        const int64_t count = p->d - i < h->across ? p->d - i : h->across;
        float *cells = values_at(h, i, t);
        memset(cells, 0, COLUMNS * sizeof *cells);
        if (rows > 0) pack_across(v + t * c + i, c, rows, count, cells);
    }
}

static void load_head(const head *h, int64_t sequence, int64_t number) {
    const cpu_attention *p = h->p;
    const int64_t at = sequence * p->tk * p->heads * p->d + number * p->d, all = h->panels * COLUMNS;
    memset(h->lines, 0, (size_t)(LANES * h->depth) * sizeof *h->lines);
    for (int64_t t = 0; t < all; t += LANES) load_keys(h, p->k + at, t);
    for (int64_t t = 0; t < all; t += PAIR) load_values(h, p->v + at, t);
}

typedef struct running {
    float *queries;     /* [QUERIES][depth], cells */
    float *sums;        /* [QUERIES][width]: of weighted values */
    float *scores;      /* [QUERIES][KEYS]; then cells of weights, in the same rows */
    vec total[QUERIES]; /* of weights; its numbers are added up at the end */
    float most[QUERIES];
} running;

/* 2^(score scale - most) of each score, as cells in the same place; returns their sums. */
static inline vec weigh_scores(float *s, int64_t vectors, float scale, float most) {
    vec total = {0};
#if defined(__AVX512BF16__)
    for (int64_t v = 0; v < vectors; v += PAIR) {
        const vec even = exp2_rough(load(s + v * LANES) * scale - most);
        const vec odd = v + 1 < vectors ? exp2_rough(load(s + (v + 1) * LANES) * scale - most) : (vec){0};
        total += even + odd;
        store(s + v / PAIR * LANES, (vec)_mm512_cvtne2ps_pbh(odd, even));
    }
#else
    for (int64_t v = 0; v < vectors; v++) {
        const vec w = exp2_below_zero(load(s + v * LANES) * scale - most);
        store(s + v * LANES, w);
        total += w;
    }
#endif
    return total;
}

/* Scores of `vectors` vectors of keys to weights: 2^(score - largest so far). What there was before is scaled to the
 * new largest. */
static void weigh(const head *h, running *r, int64_t row, int64_t vectors) {
    float *s = r->scores + row * KEYS, most = r->most[row];
    vec most_of = load(s);
    for (int64_t v = 1; v < vectors; v++) most_of = larger(most_of, load(s + v * LANES));
    const float here = largest_of(most_of);
    if (here > most) {
        const float fade = exp2f((most - here) * h->scale); /* at first 2^-infinity = 0 */
        float *values = r->sums + row * h->width;
        for (int64_t i = 0; i < h->width; i += LANES) store(values + i, load(values + i) * fade);
        r->total[row] *= fade;
        r->most[row] = most = here;
    }
    r->total[row] += weigh_scores(s, vectors, h->scale, most * h->scale);
}

/* By itself: among all the rest, compilers keep a sum in memory. columns: that are wanted. */
static __attribute__((noinline)) void product(block p, int64_t rows, int64_t columns) {
    multiply_columns(p, rows, columns, CELLS);
}

/* Keys of at most PANELS panels. */
static void attend_keys(const head *h, running *r, int64_t panel, int64_t rows) {
    const int64_t first = panel * COLUMNS, left = h->p->tk - first, keys = left < KEYS ? left : KEYS;
    const int64_t vectors = (keys + LANES - 1) / LANES;
    for (int64_t i = 0; i < keys; i += COLUMNS)
        product((block){.a = r->queries,
                        .a_row = h->depth,
                        .b = h->keys + (first + i) * h->depth,
                        .depth = cells_of(h->p->d),
                        .c = r->scores + i,
                        .c_row = KEYS},
                rows, keys - i);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = keys; k < vectors * LANES; k++) r->scores[i * KEYS + k] = -INFINITY;
        weigh(h, r, i, vectors);
    }
    for (int64_t i = 0; i < h->width; i += h->across)
        product((block){.a = r->scores,
                        .a_row = KEYS,
                        .b = values_at(h, i, first),
                        .depth = cells_of(keys),
                        .c = r->sums + i,
                        .c_row = h->width,
                        .add = true},
                rows, h->width - i < h->across ? h->width - i : h->across);
}

static void attend(const head *h, running *r, int64_t sequence, int64_t number, int64_t first, int64_t rows) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d, at = (sequence * p->tq + first) * c + number * p->d;
    for (int64_t i = 0; i < rows; i++) {
        pack_along(p->q + at + i * c, p->d, r->queries + i * h->depth);
        r->most[i] = -INFINITY;
        r->total[i] = (vec){0};
    }
    memset(r->sums, 0, (size_t)(rows * h->width) * sizeof *r->sums);
    for (int64_t panel = 0; panel < h->panels; panel += PANELS) attend_keys(h, r, panel, rows);
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict sums = r->sums + i * h->width;
        float *restrict y = p->y + at + i * c;
        const float total = sum_of(r->total[i]);
        for (int64_t k = 0; k < p->d; k++) y[k] = sums[k] / total;
    }
}

static int64_t whole_vectors(int64_t numbers) {
    return (numbers + LANES - 1) / LANES * LANES;
}

void CPU_NAME(cpu_attention_flash)(const cpu_attention *p, int thread, int threads) {
    const int64_t blocks = (p->tq + QUERIES - 1) / QUERIES, all = p->n * p->heads * blocks;
    head h = {.p = p,
              .width = whole_vectors(p->d),
              .depth = whole_vectors(cells_of(p->d)),
              .panels = (p->tk + COLUMNS - 1) / COLUMNS,
              .scale = p->scale * 1.44269504f};
    const int64_t blocks_across = (p->d + COLUMNS - 1) / COLUMNS;
    h.across = whole_vectors((h.width + blocks_across - 1) / blocks_across);
    const int64_t keys = h.panels * h.depth * COLUMNS;
    const int64_t values = blocks_across * h.panels * COLUMNS / PAIR * COLUMNS;
    cpu_room room = cpu_room_open(keys + values + LANES * h.depth + QUERIES * (h.depth + h.width + KEYS));
    running r;
    h.keys = room.floats;
    h.values = h.keys + keys;
    h.lines = h.values + values;
    r.scores = h.lines + LANES * h.depth;
    r.sums = r.scores + QUERIES * KEYS;
    r.queries = r.sums + QUERIES * h.width;
    int64_t first, loaded = -1;
    const int64_t count = cpu_share(all, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t number = i / blocks, query = i % blocks * QUERIES;
        if (number != loaded) load_head(&h, number / p->heads, number % p->heads);
        loaded = number;
        attend(&h, &r, number / p->heads, number % p->heads, query, p->tq - query < QUERIES ? p->tq - query : QUERIES);
    }
    cpu_room_close(&room);
}
