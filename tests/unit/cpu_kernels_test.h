/* cpu_kernels_test.h - what the tests of the kernels for CPUs share: random numbers, and a run of a matrix product. */
#ifndef MYSTI_TESTS_CPU_KERNELS_TEST_H
#define MYSTI_TESTS_CPU_KERNELS_TEST_H

#include "diffusion/cpu/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const char *const names[] = {"plain", "avx2", "avx512", "avx512bf16", "avx512amx"};
static uint64_t seed; /* of number(); main() sets it */

/* -1 .. 1 */
static inline float number(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    return (float)((double)(seed >> 11) / 4503599627370496.0 - 1.0);
}

static inline float *numbers(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = number();
    return x;
}

/* What is used before it is set shows. */
static inline float *nans(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

/* The upper half of a number's bits. */
static inline uint16_t half_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Weights of 16 bits, as bfloat16 has them: to be turned into floats by the kernels. */
static inline uint16_t *halves(int64_t n) {
    uint16_t *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = half_of(number());
    return x;
}

static inline float half_value(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline void half_floats(const void *from, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = half_value(((const uint16_t *)from)[i]);
}

static inline int below(int most) {
    return (int)((number() + 1) / 2 * (float)most);
}

enum { BLOCK = 256 };

/* As a quantised type is read: whole blocks only. */
static inline void block_floats(const void *from, float *to, int64_t n) {
    assert_int_equal(n % BLOCK, 0);
    half_floats(from, to, n);
}

/* x [rows, width], packed. */
static inline float *packed_rows(const cpu_packing *p, const float *x, int64_t rows, int64_t width) {
    const int64_t row = p->row(width);
    float *y = nans(rows * row);
    for (int64_t i = 0; i < rows; i++) p->pack(x + i * width, width, y + i * row);
    return y;
}

enum { TAPS = 3 };

static inline void copy_of(const void *source, size_t from, size_t bytes, void *to) {
    memcpy(to, (const char *)source + from, bytes);
}

/* keep(), a product's or Winograd's, by three threads; with copies of the weights as well, which changes no bit. */
static inline void keep_both_ways(void (*keep)(const cpu_keep *k, int thread, int threads), const cpu_keep *k,
                                  int64_t floats) {
    cpu_keep copied = *k;
    copied.kept = nans(floats);
    copied.copy = copy_of;
    copied.source = k->weight.data;
    copied.weight.data = NULL;
    for (int i = 0; i < 3; i++) keep(k, i, 3);
    for (int i = 0; i < 3; i++) keep(&copied, i, 3);
    assert_memory_equal(k->kept, copied.kept, (size_t)floats * sizeof *k->kept);
    free(copied.kept);
}

/* The weights of p, kept, where a row lies as [in / taps][taps]: the same product, bit for bit. */
static inline void check_kept(const cpu_product *product, const cpu_linear *p, const float *want, int64_t taps) {
    const int64_t each = p->in / taps, floats = product->kept_floats(p->out, p->in);
    float *row = malloc((size_t)p->in * sizeof *row), *lying = malloc((size_t)(p->in * p->out) * sizeof *lying);
    for (int64_t o = 0; o < p->out; o++) {
        const char *from = (const char *)p->weight.data + (size_t)o * p->weight.row_bytes;
        if (p->weight.to_floats)
            p->weight.to_floats(from, row, p->in);
        else
            memcpy(row, from, (size_t)p->in * sizeof *row);
        for (int64_t i = 0; i < p->in; i++) lying[o * p->in + i % each * taps + i / each] = row[i];
    }
    float *kept = nans(floats), *y = nans(p->t * p->out);
    const cpu_keep k = {.weight = {lying, (size_t)p->in * sizeof *lying, 1, sizeof *lying, NULL},
                        .kept = kept,
                        .in = p->in,
                        .out = p->out,
                        .taps = taps};
    keep_both_ways(product->keep, &k, floats);
    cpu_linear l = *p;
    l.weight = (cpu_matrix){0};
    l.kept = kept;
    l.y = y;
    for (int i = 0; i < 2; i++) product->linear(&l, i, 2);
    assert_memory_equal(y, want, (size_t)(p->t * p->out) * sizeof *y);
    free(row), free(lying), free(kept), free(y);
}

/* l->y from rows of floats; it is the same for any number of threads. */
static inline void run_linear(const cpu_product *product, const cpu_linear *l) {
    cpu_linear p = *l;
    float *rows = product->packing ? packed_rows(product->packing, l->x, l->t, l->in) : NULL;
    float *again = malloc((size_t)(l->t * l->out) * sizeof *again);
    if (rows) p.x = rows;
    for (int64_t i = 0; i < l->t * l->out; i++) l->y[i] = NAN;
    product->linear(&p, 0, 1);
    p.y = again;
    for (int threads = 2; threads <= 7; threads += 5) {
        for (int64_t i = 0; i < l->t * l->out; i++) again[i] = NAN;
        for (int i = 0; i < threads; i++) product->linear(&p, i, threads);
        assert_memory_equal(l->y, again, (size_t)(l->t * l->out) * sizeof *again);
    }
    if (product->keep) check_kept(product, &p, l->y, 1);
    if (product->keep && l->in % TAPS == 0) check_kept(product, &p, l->y, TAPS);
    free(rows), free(again);
}

/* Weights [rows, in]; in_blocks: of which only whole blocks are read. */
static inline cpu_matrix half_matrix(const uint16_t *w, int64_t in, bool in_blocks) {
    const size_t row = (size_t)in * sizeof *w;
    if (in_blocks) return (cpu_matrix){w, row, BLOCK, BLOCK * sizeof *w, block_floats};
    return (cpu_matrix){w, row, 1, sizeof *w, half_floats};
}

#endif
