#include "diffusion/sample/brownian.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- seeds: numpy's SeedSequence, O'Neill's seed_seq_fe ---------------------------------------------------------- */

enum { POOL = 24, WORDS_MAX = POOL + 4 };

static uint32_t hash_mix(uint32_t value, uint32_t *hash) {
    value ^= *hash;
    *hash *= 0x931e8875u;
    value *= *hash;
    return value ^ value >> 16;
}

static uint32_t mix(uint32_t x, uint32_t y) {
    const uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;
    return r ^ r >> 16;
}

/* A number as 32-bit words, the lowest first, at least one. */
static int add_words(uint32_t *words, int count, uint64_t v) {
    do {
        words[count++] = (uint32_t)v;
        v >>= 32;
    } while (v);
    return count;
}

uint32_t brownian_node_seed(uint64_t entropy, const uint64_t *key, int count) {
    uint32_t words[WORDS_MAX] = {0}, pool[POOL], hash = 0x43b0d7e5u;
    int total = add_words(words, 0, entropy);
    if (count) total = POOL; /* the key comes behind a whole pool */
    for (int i = 0; i < count; i++) total = add_words(words, total, key[i]);
    for (int i = 0; i < POOL; i++) pool[i] = hash_mix(words[i], &hash);
    for (int from = 0; from < POOL; from++) {
        for (int to = 0; to < POOL; to++)
            if (from != to) pool[to] = mix(pool[to], hash_mix(pool[from], &hash));
    }
    for (int from = POOL; from < total; from++) {
        for (int to = 0; to < POOL; to++) pool[to] = mix(pool[to], hash_mix(words[from], &hash));
    }
    const uint32_t value = (pool[0] ^ 0x8b51f9ddu) * (0x8b51f9ddu * 0x58f38dedu);
    return value ^ value >> 16;
}

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

/* To six decimals, as Python rounds: of the exact value, correctly. */
static double round6(double v) {
    char text[64];
    snprintf(text, sizeof text, "%.6f", v);
    return strtod(text, NULL);
}

static void draw_node(brownian *b, const uint64_t *key, int count) {
    rng r;
    rng_init(&r, b->kind, brownian_node_seed(b->seed, key, count), b->n);
    rng_normal(&r, 0, b->draw);
}

void brownian_open(brownian *b, rng_kind kind, uint64_t seed, size_t n, float low, float high) {
    *b = (brownian){.kind = kind, .seed = seed, .n = n, .low = (double)low, .high = (double)high};
    b->at_sigma = b->end_sigma = -1.0;
    b->at = mem_alloc(n, sizeof(double));
    b->node = mem_alloc(n, sizeof(double));
    b->end = mem_alloc(n, sizeof(double));
    b->draw = mem_alloc(n, sizeof(float));
}

void brownian_close(brownian *b) {
    free(b->at);
    free(b->node);
    free(b->end);
    free(b->draw);
    *b = (brownian){0};
}

/* out: [n], the motion at sigma, counted from `low`. Descends from the whole range: the increment of a node is split at
 * its middle by a Brownian bridge. */
static void motion_at(brownian *b, double sigma, double *out) {
    double start = round6(b->low), end = round6(b->high);
    const double to = fmin(fmax(round6(sigma), start), end);
    uint64_t key[2] = {0, 0}; /* the path, and its length */
    memset(out, 0, b->n * sizeof(double));
    if (to <= start) return;
    draw_node(b, NULL, 0);
    const double whole = sqrt(b->high - b->low);
    for (size_t i = 0; i < b->n; i++) b->node[i] = whole * (double)b->draw[i];
    while (to < end) {
        const double mid = round6(0.5 * (end + start));
        if (mid <= start || mid >= end) break; /* no finer than the rounding */
        const double share = (mid - start) / (end - start), bridge = sqrt((mid - start) * (end - mid) / (end - start));
        const bool left = to <= mid;
        draw_node(b, key, 2);
        for (size_t i = 0; i < b->n; i++) {
            const double below = share * b->node[i] + bridge * (double)b->draw[i];
            if (!left) out[i] += below;
            b->node[i] = left ? below : b->node[i] - below;
        }
        if (left)
            end = mid;
        else
            start = mid;
        key[0] = 2 * key[0] + (left ? 0 : 1);
        key[1]++;
    }
    for (size_t i = 0; i < b->n; i++) out[i] += b->node[i];
}

void brownian_noise(brownian *b, float from, float to, float *out) {
    const double high = (double)from, low = (double)to;
    if (high == b->at_sigma) { /* the last increment ended where this one begins */
        double *end = b->end;
        b->end = b->at;
        b->at = end;
        b->end_sigma = b->at_sigma;
    }
    if (!(high == b->end_sigma)) motion_at(b, high, b->end);
    motion_at(b, low, b->at);
    b->end_sigma = high;
    b->at_sigma = low;
    const double scale = 1.0 / sqrt(high - low); /* k-diffusion takes increments on the way down as they come */
    for (size_t i = 0; i < b->n; i++) out[i] = (float)((b->at[i] - b->end[i]) * scale);
}
