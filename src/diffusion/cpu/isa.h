/* isa.h - what the kernels of this folder are written in: vectors as wide as the instruction set's, and the block of a
 * matrix product that stays in registers. Included only by files that are compiled once for each instruction set, with
 * CPU_ISA defined as its name.
 *
 * No intrinsics: GCC's and clang's vector types become AVX-512, AVX2, SSE or NEON by the compiler's flags alone, so
 * each kernel exists once. Sums are float; a multiply-add is one instruction where there is one (-ffp-contract=fast).
 */
#ifndef MYSTI_DIFFUSION_CPU_ISA_H
#define MYSTI_DIFFUSION_CPU_ISA_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CPU_JOIN2(name, isa) name##_##isa
#define CPU_JOIN(name, isa) CPU_JOIN2(name, isa)
#define CPU_NAME(name) CPU_JOIN(name, CPU_ISA) /* a public function's name for this instruction set */

/* A block is ROWS x VECS vectors of sums, VECS vectors of one operand and one number of the other: 28 of AVX-512's and
 * NEON's 32 registers, all 16 of AVX2's and SSE's. */
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 8, VECS = 3 };
#elif defined(__AVX2__)
enum { LANES = 8, ROWS = 4, VECS = 3 };
#elif defined(__aarch64__)
enum { LANES = 4, ROWS = 8, VECS = 3 };
#else
enum { LANES = 4, ROWS = 4, VECS = 3 };
#endif
enum { COLUMNS = LANES * VECS };

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_at __attribute__((vector_size(LANES * 4), aligned(4), may_alias)); /* anywhere in memory */

static inline vec load(const float *p) {
    return *(const vec_at *)p;
}
static inline void store(float *p, vec v) {
    *(vec_at *)p = v;
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Every second number of two vectors laid end to end, and the reverse: two vectors dealt out in turns. */
#if defined(__AVX512F__)
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVENS 0, 2, 4, 6
#define ODDS 1, 3, 5, 7
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#endif
#define SHUFFLE __builtin_shufflevector

/* 4 LANES numbers -> four vectors: every fourth number, from the first, second, third, fourth on. */
ALWAYS_INLINE void split4(const float *p, vec o[4]) {
    const vec a = load(p), b = load(p + LANES), c = load(p + 2 * LANES), d = load(p + 3 * LANES);
    const vec even1 = SHUFFLE(a, b, EVENS), even2 = SHUFFLE(c, d, EVENS);
    const vec odd1 = SHUFFLE(a, b, ODDS), odd2 = SHUFFLE(c, d, ODDS);
    o[0] = SHUFFLE(even1, even2, EVENS);
    o[1] = SHUFFLE(odd1, odd2, EVENS);
    o[2] = SHUFFLE(even1, even2, ODDS);
    o[3] = SHUFFLE(odd1, odd2, ODDS);
}

/* The reverse. */
ALWAYS_INLINE void join4(const vec y[4], float *p) {
    const vec even1 = SHUFFLE(y[0], y[2], LOWER), even2 = SHUFFLE(y[0], y[2], UPPER);
    const vec odd1 = SHUFFLE(y[1], y[3], LOWER), odd2 = SHUFFLE(y[1], y[3], UPPER);
    store(p, SHUFFLE(even1, odd1, LOWER));
    store(p + LANES, SHUFFLE(even1, odd1, UPPER));
    store(p + 2 * LANES, SHUFFLE(even2, odd2, LOWER));
    store(p + 3 * LANES, SHUFFLE(even2, odd2, UPPER));
}

/* The larger of each two numbers. */
ALWAYS_INLINE vec larger(vec a, vec b) {
    typedef int32_t ints __attribute__((vector_size(LANES * 4)));
    const ints first = a > b;
    return (vec)(((ints)a & first) | ((ints)b & ~first));
}

/* Folds a vector with f until its first four numbers stand for all. */
#if defined(__AVX512F__)
#define FOLD(f, x)                                                                                                     \
    x = f(x, SHUFFLE(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));                                     \
    x = f(x, SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11))
#elif defined(__AVX2__)
#define FOLD(f, x) x = f(x, SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3))
#else
#define FOLD(f, x) (void)0
#endif

ALWAYS_INLINE vec plus(vec a, vec b) {
    return a + b;
}

/* The sum of a vector's numbers, and the largest of them. */
ALWAYS_INLINE float sum_of(vec x) {
    FOLD(plus, x);
    return (x[0] + x[1]) + (x[2] + x[3]);
}
ALWAYS_INLINE float largest_of(vec x) {
    FOLD(larger, x);
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}

/* One operand of a block: `rows` rows of `depth` numbers each, `row` apart. The other: [depth][COLUMNS]. */
typedef struct block {
    const float *a, *b;
    int64_t a_row, depth;
    float *c; /* [rows][columns], `c_row` apart */
    int64_t c_row;
    bool add; /* to what c holds */
} block;

/* c = a b (or c += a b) with the sums in registers; rows and vecs are constants wherever this is inlined. */
ALWAYS_INLINE void multiply(const block *p, const int rows, const int vecs) {
    vec sum[ROWS][VECS];
    const float *a = p->a, *b = p->b;
    const int64_t a_row = p->a_row;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) sum[i][v] = p->add ? load(p->c + i * p->c_row + v * LANES) : (vec){0};
    for (int64_t k = 0; k < p->depth; k++, b += COLUMNS) {
        vec right[VECS];
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) right[v] = load(b + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const float left = a[i * a_row + k];
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++) sum[i][v] += left * right[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) store(p->c + i * p->c_row + v * LANES, sum[i][v]);
}

/* Fewer rows: for what is left over at an edge. */
static void multiply_edge(const block *p, int rows) {
    switch (rows) {
    case 1:
        multiply(p, 1, VECS);
        break;
    case 2:
        multiply(p, 2, VECS);
        break;
    case 3:
        multiply(p, 3, VECS);
        break;
    case 4:
        multiply(p, 4, VECS);
        break;
#if defined(__AVX512F__) || defined(__aarch64__)
    case 5:
        multiply(p, 5, VECS);
        break;
    case 6:
        multiply(p, 6, VECS);
        break;
    case 7:
        multiply(p, 7, VECS);
        break;
    case 8:
        multiply(p, 8, VECS);
        break;
#endif
    default:
        break;
    }
}

/* Any number of rows by COLUMNS columns. */
static inline void multiply_rows(block p, int64_t rows) {
    for (; rows >= ROWS; rows -= ROWS) {
        multiply(&p, ROWS, VECS);
        p.a += ROWS * p.a_row;
        p.c += ROWS * p.c_row;
    }
    if (rows > 0) multiply_edge(&p, (int)rows);
}

#endif
