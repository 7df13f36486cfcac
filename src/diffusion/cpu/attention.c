/* attention.c - softmax(q k^T scale) v without ever holding all scores (Dao et al. 2022, "FlashAttention", algorithm
 * 1).
 *
 * A thread takes a head and a share of its queries. Keys and values lie ready as panels, COLUMNS keys each:
 * [d][COLUMNS] and [COLUMNS][width] with the width of a head filled up to whole vectors. QUERIES queries go through all
 * panels: their scores of COLUMNS keys, the largest so far, and sums and values that are scaled down whenever a larger
 * score comes. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

#include <math.h>

enum { QUERIES = 8 * ROWS };

/* e^x for x <= 0, relative error below 2e-7: 2^n times a polynomial of the rest (Cody & Waite's reduction, Taylor's
 * coefficients, |r| <= ln 2 / 2). Below -87 it is 0. */
ALWAYS_INLINE vec exp_below_zero(vec x) {
    typedef int32_t ints __attribute__((vector_size(LANES * 4)));
    const vec least = (vec){0} - 87.0f;
    const ints tiny = x < least;
    x = (vec)((ints)x & ~tiny);
    const vec magic = (vec){0} + 12582912.0f; /* 1.5 2^23: adding it rounds to a whole number */
    const vec n = (x * 1.44269504f + magic) - magic;
    const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec y = r * (1.0f / 720) + (1.0f / 120);
    y = y * r + (1.0f / 24);
    y = y * r + (1.0f / 6);
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    const ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return (vec)((ints)(y * (vec)power) & ~tiny);
}

typedef struct head {
    const cpu_attention *p;
    int64_t width, panels; /* floats of a value's row; panels of keys */
    float *keys;           /* [panels][d][COLUMNS] */
    float *values;         /* [panels][COLUMNS][width] in column blocks: [width / COLUMNS][COLUMNS keys][COLUMNS] */
} head;

static void load_head(const head *h, int64_t sequence, int64_t number) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d;
    const float *k = p->k + sequence * p->tk * c + number * p->d, *v = p->v + sequence * p->tk * c + number * p->d;
    memset(h->values, 0, (size_t)(h->panels * COLUMNS * h->width) * sizeof *h->values);
    for (int64_t t = 0; t < h->panels * COLUMNS; t++) {
        const int64_t panel = t / COLUMNS, column = t % COLUMNS;
        float *key = h->keys + panel * p->d * COLUMNS + column;
        for (int64_t i = 0; i < p->d; i++) key[i * COLUMNS] = t < p->tk ? k[t * c + i] : 0;
        float *value = h->values + panel * COLUMNS * h->width + column * COLUMNS;
        for (int64_t i = 0; i < p->d && t < p->tk; i++)
            value[i / COLUMNS * COLUMNS * COLUMNS + i % COLUMNS] = v[t * c + i];
    }
}

typedef struct running {
    float *queries; /* [QUERIES][d], scaled */
    float *sums;    /* [QUERIES][width]: of weighted values */
    float scores[QUERIES * COLUMNS];
    float most[QUERIES], total[QUERIES];
} running;

/* Scores to weights: e^(score - largest so far). What there was before is scaled to the new largest. */
static void weigh(const head *h, running *r, int64_t row, int64_t keys) {
    float *s = r->scores + row * COLUMNS, most = r->most[row];
    for (int64_t j = keys; j < COLUMNS; j++) s[j] = -INFINITY;
    vec most_of = load(s);
    for (int v = 1; v < VECS; v++) most_of = larger(most_of, load(s + v * LANES));
    for (int i = 0; i < LANES; i++) most = most_of[i] > most ? most_of[i] : most;
    const float fade = most == r->most[row] ? 1 : expf(r->most[row] - most); /* at first e^-infinity = 0 */
    vec total = {0};
    for (int v = 0; v < VECS; v++) {
        const vec w = exp_below_zero(load(s + v * LANES) - most);
        store(s + v * LANES, w);
        total += w;
    }
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += total[i];
    r->total[row] = r->total[row] * fade + sum;
    r->most[row] = most;
    if (fade == 1) return;
    float *values = r->sums + row * h->width;
    for (int64_t i = 0; i < h->width; i += LANES) store(values + i, load(values + i) * fade);
}

static void attend_panel(const head *h, running *r, int64_t panel, int64_t rows) {
    const int64_t d = h->p->d, left = h->p->tk - panel * COLUMNS, keys = left < COLUMNS ? left : COLUMNS;
    multiply_rows((block){.a = r->queries,
                          .a_row = d,
                          .b = h->keys + panel * d * COLUMNS,
                          .depth = d,
                          .c = r->scores,
                          .c_row = COLUMNS},
                  rows);
    for (int64_t i = 0; i < rows; i++) weigh(h, r, i, keys);
    for (int64_t i = 0; i < h->width; i += COLUMNS)
        multiply_rows((block){.a = r->scores,
                              .a_row = COLUMNS,
                              .b = h->values + panel * COLUMNS * h->width + i * COLUMNS,
                              .depth = keys,
                              .c = r->sums + i,
                              .c_row = h->width,
                              .add = true},
                      rows);
}

static void attend(const head *h, running *r, int64_t sequence, int64_t number, int64_t first, int64_t rows) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d, at = (sequence * p->tq + first) * c + number * p->d;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < p->d; k++) r->queries[i * p->d + k] = p->q[at + i * c + k] * p->scale;
        r->most[i] = -INFINITY;
        r->total[i] = 0;
    }
    memset(r->sums, 0, (size_t)(rows * h->width) * sizeof *r->sums);
    for (int64_t panel = 0; panel < h->panels; panel++) attend_panel(h, r, panel, rows);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < p->d; k++) p->y[at + i * c + k] = r->sums[i * h->width + k] / r->total[i];
}

void CPU_NAME(cpu_attention_flash)(const cpu_attention *p, int thread, int threads) {
    const int64_t blocks = (p->tq + QUERIES - 1) / QUERIES, all = p->n * p->heads * blocks;
    head h = {.p = p, .width = (p->d + COLUMNS - 1) / COLUMNS * COLUMNS, .panels = (p->tk + COLUMNS - 1) / COLUMNS};
    const int64_t keys = h.panels * p->d * COLUMNS, values = h.panels * COLUMNS * h.width;
    cpu_room room = cpu_room_open(keys + values + QUERIES * (p->d + h.width));
    running r;
    h.keys = room.floats;
    h.values = h.keys + keys;
    r.sums = h.values + values;
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
