/* attention.c - softmax(q k^T scale) v without ever holding all scores (Dao et al. 2022, "FlashAttention", algorithm
 * 1).
 *
 * A thread takes a head and a share of its queries. Keys lie ready as panels of COLUMNS keys, [d][COLUMNS], and values
 * [keys][COLUMNS] for each COLUMNS of a head's numbers. QUERIES queries go past KEYS keys at a time: there are their
 * scores of those, the largest score so far, and sums and values that are scaled down whenever a larger score comes.
 * KEYS is several panels, so that looking for the largest and reading the sums again costs little beside the products.
 *
 * Scores are logarithms to the base 2: log2 e is in the queries' scale. */
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

#include <math.h>

enum { QUERIES = 8 * ROWS, PANELS = 4, KEYS = PANELS * COLUMNS };

typedef struct head {
    const cpu_attention *p;
    int64_t width, panels; /* floats of a value's row; panels of keys */
    float *keys;           /* [panels][d][COLUMNS] */
    float *values;         /* [width / COLUMNS][panels * COLUMNS][COLUMNS] */
} head;

static void load_head(const head *h, int64_t sequence, int64_t number) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d, all = h->panels * COLUMNS;
    const float *k = p->k + sequence * p->tk * c + number * p->d, *v = p->v + sequence * p->tk * c + number * p->d;
    for (int64_t t = 0; t < all; t++) {
        float *key = h->keys + t / COLUMNS * p->d * COLUMNS + t % COLUMNS;
        for (int64_t i = 0; i < p->d; i++) key[i * COLUMNS] = t < p->tk ? k[t * c + i] : 0;
        for (int64_t i = 0; i < h->width; i += COLUMNS) {
            const int64_t count = p->d - i < COLUMNS ? p->d - i : COLUMNS;
            float *value = h->values + (i / COLUMNS * all + t) * COLUMNS;
            memset(value, 0, COLUMNS * sizeof *value);
            if (t < p->tk) memcpy(value, v + t * c + i, (size_t)count * sizeof *value);
        }
    }
}

typedef struct running {
    float *queries; /* [QUERIES][d], scaled */
    float *sums;    /* [QUERIES][width]: of weighted values */
    float *scores;  /* [QUERIES][KEYS] */
    float most[QUERIES], total[QUERIES];
} running;

/* Scores of `vectors` vectors of keys to weights: 2^(score - largest so far). What there was before is scaled to the
 * new largest. */
static void weigh(const head *h, running *r, int64_t row, int64_t vectors) {
    float *s = r->scores + row * KEYS, most = r->most[row];
    vec most_of = load(s);
    for (int64_t v = 1; v < vectors; v++) most_of = larger(most_of, load(s + v * LANES));
    const float here = largest_of(most_of);
    if (here > most) {
        const float fade = exp2f(most - here); /* at first 2^-infinity = 0 */
        float *values = r->sums + row * h->width;
        for (int64_t i = 0; i < h->width; i += LANES) store(values + i, load(values + i) * fade);
        r->total[row] *= fade;
        r->most[row] = most = here;
    }
    vec total = {0};
    for (int64_t v = 0; v < vectors; v++) {
        const vec w = exp2_below_zero(load(s + v * LANES) - most);
        store(s + v * LANES, w);
        total += w;
    }
    r->total[row] += sum_of(total);
}

/* By itself: among all the rest, compilers keep a sum in memory. */
static __attribute__((noinline)) void product(block p, int64_t rows) {
    multiply_rows(p, rows);
}

/* Keys of at most PANELS panels. */
static void attend_keys(const head *h, running *r, int64_t panel, int64_t rows) {
    const int64_t d = h->p->d, first = panel * COLUMNS, left = h->p->tk - first, keys = left < KEYS ? left : KEYS;
    const int64_t vectors = (keys + LANES - 1) / LANES;
    for (int64_t i = 0; i < keys; i += COLUMNS)
        product((block){.a = r->queries,
                        .a_row = d,
                        .b = h->keys + (first + i) * d,
                        .depth = d,
                        .c = r->scores + i,
                        .c_row = KEYS},
                rows);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = keys; k < vectors * LANES; k++) r->scores[i * KEYS + k] = -INFINITY;
        weigh(h, r, i, vectors);
    }
    for (int64_t i = 0; i < h->width; i += COLUMNS)
        product((block){.a = r->scores,
                        .a_row = KEYS,
                        .b = h->values + i * h->panels * COLUMNS + first * COLUMNS,
                        .depth = keys,
                        .c = r->sums + i,
                        .c_row = h->width,
                        .add = true},
                rows);
}

static void attend(const head *h, running *r, int64_t sequence, int64_t number, int64_t first, int64_t rows) {
    const cpu_attention *p = h->p;
    const int64_t c = p->heads * p->d, at = (sequence * p->tq + first) * c + number * p->d;
    const float scale = p->scale * 1.44269504f;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < p->d; k++) r->queries[i * p->d + k] = p->q[at + i * c + k] * scale;
        r->most[i] = -INFINITY;
        r->total[i] = 0;
    }
    memset(r->sums, 0, (size_t)(rows * h->width) * sizeof *r->sums);
    for (int64_t panel = 0; panel < h->panels; panel += PANELS) attend_keys(h, r, panel, rows);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < p->d; k++) p->y[at + i * c + k] = r->sums[i * h->width + k] / r->total[i];
}

void CPU_NAME(cpu_attention_flash)(const cpu_attention *p, int thread, int threads) {
    const int64_t blocks = (p->tq + QUERIES - 1) / QUERIES, all = p->n * p->heads * blocks;
    head h = {.p = p, .width = (p->d + COLUMNS - 1) / COLUMNS * COLUMNS, .panels = (p->tk + COLUMNS - 1) / COLUMNS};
    const int64_t keys = h.panels * p->d * COLUMNS, values = h.panels * COLUMNS * h.width;
    cpu_room room = cpu_room_open(keys + values + QUERIES * (p->d + h.width + KEYS));
    running r;
    h.keys = room.floats;
    h.values = h.keys + keys;
    r.scores = h.values + values;
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
