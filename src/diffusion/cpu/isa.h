/* isa.h - what the kernels of this folder are written in: vectors as wide as the instruction set's, and the block of a
 * matrix product that stays in registers. Included only by files that are compiled once for each instruction set, with
 * CPU_ISA defined as its name.
 *
 * GCC's and clang's vector types become AVX-512, AVX2, SSE or NEON by the compiler's flags alone, so each kernel exists
 * once; only bfloat16 and the larger of two numbers have intrinsics. Sums are float; a multiply-add is one instruction
 * where there is one (-ffp-contract=fast).
 *
 * Operands of a product are made of cells. A cell is a float, or with bfloat16 a pair of numbers that follow each other
 * in the depth, in a float's place: VDPBF16PS multiplies both and adds both products to a float. */
#ifndef MYSTI_DIFFUSION_CPU_ISA_H
#define MYSTI_DIFFUSION_CPU_ISA_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define CPU_JOIN2(name, isa) name##_##isa
#define CPU_JOIN(name, isa) CPU_JOIN2(name, isa)
#define CPU_NAME(name) CPU_JOIN(name, CPU_ISA) /* a public function's name for this instruction set */
#define CPU_QUOTE2(isa) #isa
#define CPU_QUOTE(isa) CPU_QUOTE2(isa)
#define CPU_STRING CPU_QUOTE(CPU_ISA)

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

/* Numbers in a cell. */
#if defined(__AVX512BF16__)
enum { PAIR = 2 };
#else
enum { PAIR = 1 };
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_at __attribute__((vector_size(LANES * 4), aligned(4), may_alias)); /* anywhere in memory */

static inline vec load(const float *p) {
    return *(const vec_at *)p;
}
static inline void store(float *p, vec v) {
    *(vec_at *)p = v;
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The last few numbers behind whole vectors, for functions of one vector. */
ALWAYS_INLINE vec load_some(const float *p, int64_t count) {
    vec v = {0};
    memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}
ALWAYS_INLINE void store_some(float *p, vec v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}

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

/* The same of 2 LANES numbers, in two vectors. */
ALWAYS_INLINE void split2(const float *p, vec o[2]) {
    const vec a = load(p), b = load(p + LANES);
    o[0] = SHUFFLE(a, b, EVENS);
    o[1] = SHUFFLE(a, b, ODDS);
}

/* The reverse of both. */
ALWAYS_INLINE void join2(const vec y[2], float *p) {
    store(p, SHUFFLE(y[0], y[1], LOWER));
    store(p + LANES, SHUFFLE(y[0], y[1], UPPER));
}
ALWAYS_INLINE void join4(const vec y[4], float *p) {
    const vec even1 = SHUFFLE(y[0], y[2], LOWER), even2 = SHUFFLE(y[0], y[2], UPPER);
    const vec odd1 = SHUFFLE(y[1], y[3], LOWER), odd2 = SHUFFLE(y[1], y[3], UPPER);
    store(p, SHUFFLE(even1, odd1, LOWER));
    store(p + LANES, SHUFFLE(even1, odd1, UPPER));
    store(p + 2 * LANES, SHUFFLE(even2, odd2, LOWER));
    store(p + 3 * LANES, SHUFFLE(even2, odd2, UPPER));
}

/* LANES vectors, turned. With AVX-512 first within parts of four numbers, which are quick to move in; then whole parts
 * change places. Elsewhere each stage deals out two halves in turns, which moves one bit of a number's place in its
 * vector to its vector's number. */
ALWAYS_INLINE void transpose(vec m[LANES]) {
#if defined(__AVX512F__)
    vec o[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        const __m512d a = (__m512d)_mm512_unpacklo_ps(m[i], m[i + 1]), b = (__m512d)_mm512_unpackhi_ps(m[i], m[i + 1]);
        const __m512d c = (__m512d)_mm512_unpacklo_ps(m[i + 2], m[i + 3]);
        const __m512d d = (__m512d)_mm512_unpackhi_ps(m[i + 2], m[i + 3]);
        o[i] = (vec)_mm512_unpacklo_pd(a, c);
        o[i + 1] = (vec)_mm512_unpackhi_pd(a, c);
        o[i + 2] = (vec)_mm512_unpacklo_pd(b, d);
        o[i + 3] = (vec)_mm512_unpackhi_pd(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const vec a = _mm512_shuffle_f32x4(o[i], o[i + 4], 0x88), b = _mm512_shuffle_f32x4(o[i], o[i + 4], 0xdd);
        const vec c = _mm512_shuffle_f32x4(o[i + 8], o[i + 12], 0x88);
        const vec d = _mm512_shuffle_f32x4(o[i + 8], o[i + 12], 0xdd);
        m[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        m[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        m[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        m[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
#else
#pragma GCC unroll 4
    for (int stage = 1; stage < LANES; stage *= 2) {
        vec o[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            o[2 * i] = SHUFFLE(m[i], m[i + LANES / 2], LOWER);
            o[2 * i + 1] = SHUFFLE(m[i], m[i + LANES / 2], UPPER);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) m[i] = o[i];
    }
#endif
}

/* The larger of each two numbers. */
ALWAYS_INLINE vec larger(vec a, vec b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    typedef int32_t ints __attribute__((vector_size(LANES * 4)));
    const ints first = a > b;
    return (vec)(((ints)a & first) | ((ints)b & ~first));
#endif
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

/* --- Cells ------------------------------------------------------------------------------------------------------- */

static inline int64_t cells_of(int64_t numbers) {
    return (numbers + PAIR - 1) / PAIR;
}

/* n numbers that follow each other in the depth -> cells_of(n) cells; the last one's second number may be 0. */
static inline void pack_along(const float *from, int64_t n, float *cells) {
#if defined(__AVX512BF16__)
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        store(cells + i / PAIR, (vec)_mm512_cvtne2ps_pbh(load(from + i + LANES), load(from + i)));
    if (i == n) return;
    float rest[2 * LANES] = {0}, packed[LANES];
    memcpy(rest, from + i, (size_t)(n - i) * sizeof *from);
    store(packed, (vec)_mm512_cvtne2ps_pbh(load(rest + LANES), load(rest)));
    memcpy(cells + i / PAIR, packed, (size_t)cells_of(n - i) * sizeof *cells);
#else
    memcpy(cells, from, (size_t)n * sizeof *cells);
#endif
}

enum { LINE_OF_FLOATS = 16 }; /* in a cache line */

/* At least so many floats, in an odd number of cache lines: what lies that far apart does not fall together in the
 * cache. */
static inline int64_t odd_lines(int64_t floats) {
    return ((floats + LINE_OF_FLOATS - 1) / LINE_OF_FLOATS | 1) * LINE_OF_FLOATS;
}

#if defined(__AVX512BF16__)
/* A vector of cells: the numbers of `even` with those of `odd` behind each. */
ALWAYS_INLINE vec pair_up(vec even, vec odd) {
    typedef int16_t shorts __attribute__((vector_size(LANES * 4)));
    const shorts both = (shorts)_mm512_cvtne2ps_pbh(odd, even);
    return (vec)SHUFFLE(both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11,
                        27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#endif

/* A vector of cells of PAIR vectors of numbers. */
ALWAYS_INLINE vec cells_from(const vec numbers[PAIR]) {
#if defined(__AVX512BF16__)
    return pair_up(numbers[0], numbers[1]);
#else
    return numbers[0];
#endif
}

/* `rows` <= PAIR rows of n numbers, `step` apart, of which each number of one row is followed in the depth by that of
 * the next -> n cells. A row that is not there is 0. */
static inline void pack_across(const float *from, int64_t step, int64_t rows, int64_t n, float *cells) {
#if defined(__AVX512BF16__)
    const float *odd = from + step;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(cells + i, pair_up(load(from + i), rows > 1 ? load(odd + i) : (vec){0}));
    if (i == n) return;
    float rest[PAIR][LANES] = {{0}}, packed[LANES];
    memcpy(rest[0], from + i, (size_t)(n - i) * sizeof *from);
    if (rows > 1) memcpy(rest[1], odd + i, (size_t)(n - i) * sizeof *from);
    store(packed, pair_up(load(rest[0]), load(rest[1])));
    memcpy(cells + i, packed, (size_t)(n - i) * sizeof *cells);
#else
    (void)step, (void)rows;
    memcpy(cells, from, (size_t)n * sizeof *cells);
#endif
}

/* The same of PAIR rows, quicker for few numbers: reads and writes up to LANES - 1 floats beyond the end. */
static inline void pack_across_loose(const float *from, int64_t step, int64_t n, float *cells) {
#if defined(__AVX512BF16__)
    for (int64_t i = 0; i < n; i += LANES) store(cells + i, pair_up(load(from + i), load(from + step + i)));
#else
    (void)step;
    memcpy(cells, from, (size_t)n * sizeof *cells);
#endif
}

/* sum + the products of one cell and a vector of cells */
ALWAYS_INLINE vec multiply_cells(vec sum, float left, vec right) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_ps(left), (__m512bh)right);
#else
    return sum + left * right;
#endif
}

/* --- The block of a matrix product ------------------------------------------------------------------------------- */

/* One operand of a block: `rows` rows of `depth` cells each, `row` apart. The other: [depth][COLUMNS], or
 * where `places` is set, COLUMNS behind each of `depth` places in b. */
typedef struct block {
    const float *a, *b;
    const int32_t *places;
    int64_t place_step; /* from each place to the next, if that is the same for all; else 0 */
    int64_t a_row, depth;
    float *c; /* [rows][columns], `c_row` apart */
    int64_t c_row;
    bool add; /* to what c holds */
} block;

/* What the operands of a block are. TURNED_CELLS: a is [depth][a_row], with its rows side by side. */
typedef enum operands { CELLS, PLACED_CELLS, TURNED_CELLS } operands;

/* c = a b (or c += a b) with the sums in registers; rows, vecs and kind are constants wherever this is inlined. vecs:
 * of COLUMNS, those that are wanted. */
ALWAYS_INLINE void multiply(const block *p, const int rows, const int vecs, const operands kind) {
    vec sum[ROWS][VECS];
    const float *a = p->a, *b = p->b;
    const int64_t a_row = p->a_row;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) sum[i][v] = p->add ? load(p->c + i * p->c_row + v * LANES) : (vec){0};
    for (int64_t k = 0; k < p->depth; k++, b += COLUMNS) {
        const float *from = kind == PLACED_CELLS ? p->b + p->places[k] : b;
        vec right[VECS];
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) right[v] = load(from + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const float left = kind == TURNED_CELLS ? a[k * a_row + i] : a[i * a_row + k];
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++) sum[i][v] = multiply_cells(sum[i][v], left, right[v]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) store(p->c + i * p->c_row + v * LANES, sum[i][v]);
}

/* At most ROWS rows. */
ALWAYS_INLINE void multiply_some(const block *p, int64_t rows, const int vecs, const operands kind) {
    switch (rows) {
    case 1:
        multiply(p, 1, vecs, kind);
        break;
    case 2:
        multiply(p, 2, vecs, kind);
        break;
    case 3:
        multiply(p, 3, vecs, kind);
        break;
    case 4:
        multiply(p, 4, vecs, kind);
        break;
#if defined(__AVX512F__) || defined(__aarch64__)
    case 5:
        multiply(p, 5, vecs, kind);
        break;
    case 6:
        multiply(p, 6, vecs, kind);
        break;
    case 7:
        multiply(p, 7, vecs, kind);
        break;
    case 8:
        multiply(p, 8, vecs, kind);
        break;
#endif
    default:
        break;
    }
}

/* Any number of rows. */
ALWAYS_INLINE void multiply_all(block p, int64_t rows, const int vecs, const operands kind) {
    for (; rows >= ROWS; rows -= ROWS) {
        multiply(&p, ROWS, vecs, kind);
        p.a += kind == TURNED_CELLS ? ROWS : ROWS * p.a_row;
        p.c += ROWS * p.c_row;
    }
    multiply_some(&p, rows, vecs, kind);
}

/* With AMX most of a block's depth goes by tiles: 32 rows at once, and only between tiles_open() and tiles_close(). */
#if defined(CPU_AMX)
#include "diffusion/cpu/amx.h"
enum { ROWS_AT_ONCE = 2 * TILE };
#else
enum { ROWS_AT_ONCE = ROWS };
static inline void tiles_open(void) {}
static inline void tiles_close(void) {}
ALWAYS_INLINE block multiply_depth(block p, int64_t rows, const int vecs, const operands kind) {
    (void)rows, (void)vecs, (void)kind;
    return p;
}
#endif

ALWAYS_INLINE void multiply_vecs(block p, int64_t rows, const int vecs, const operands kind) {
    p = multiply_depth(p, rows, vecs, kind);
    if (p.depth > 0 || !p.add) multiply_all(p, rows, vecs, kind);
}

/* Only as many whole vectors as `columns` columns need. */
ALWAYS_INLINE void multiply_columns(block p, int64_t rows, int64_t columns, const operands kind) {
    if (columns <= LANES)
        multiply_vecs(p, rows, 1, kind);
    else if (columns <= 2 * LANES)
        multiply_vecs(p, rows, 2, kind);
    else
        multiply_vecs(p, rows, VECS, kind);
}

static inline void multiply_cell_rows(block p, int64_t rows) {
    multiply_all(p, rows, VECS, CELLS);
}

#endif
