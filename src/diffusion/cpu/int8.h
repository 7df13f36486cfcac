/* int8.h - rows and weights of a product as integers of eight bits, and the block of their product.
 *
 * A group is GROUP numbers that follow each other in the depth. Its largest is 127 times its scale, and all are rounded
 * to whole scales (as in ggml's Q8_0, which has groups of 32). A cell has four of them, and one instruction multiplies
 * a cell's four numbers with another's and adds the products to an integer: VPDPBUSD, or SDOT. A group's sums are
 * integers, exact; its scales are applied to them as they are added to sums that are floats.
 *
 * VPDPBUSD takes one operand without a sign. So a weight is stored with 128 added, and what that adds to a group's sum,
 * 128 times the sum of the row's numbers, is what the sum starts from, negative. It lies behind the row's group, as the
 * scales do behind each group. */
#ifndef MYSTI_DIFFUSION_CPU_INT8_H
#define MYSTI_DIFFUSION_CPU_INT8_H

#include "diffusion/cpu/isa.h"

#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

/* In numbers; DATA_CELLS: of a group's numbers; ROW_CELLS, WEIGHT_CELLS: with all that follows them. ADDED: to a
 * weight. */
enum { STRETCH = 4 * LANES }; /* numbers of a vector of cells */
enum { GROUP = 128, DATA_CELLS = GROUP / 4, ROW_CELLS = DATA_CELLS + 2, WEIGHT_CELLS = DATA_CELLS + 1 };
enum { LINE_OF_GROUPS = 1 }; /* a group is more than a cache line */
#if defined(__ARM_FEATURE_DOTPROD)
enum { ADDED = 0 };
#else
enum { ADDED = 128 };
#endif

typedef int32_t int32s __attribute__((vector_size(LANES * 4)));

/* The larger of each two whole numbers. */
ALWAYS_INLINE int32s larger_whole(int32s a, int32s b) {
#if defined(__AVX512F__)
    return (int32s)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (int32s)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    const int32s first = a > b;
    return (a & first) | (b & ~first);
#endif
}

ALWAYS_INLINE int32s plus_whole(int32s a, int32s b) {
    return a + b;
}

/* The largest of GROUP numbers without their signs, or 1e-30 if that is more. Bits of such numbers are in the same
 * order as the numbers, with what is infinite or no number above all. */
ALWAYS_INLINE float largest_of_group(const float *from) {
    const int32s unsign = (int32s){0} + INT32_MAX;
    const vec least = (vec){0} + 1e-30f; /* its inverse is finite */
    int32s most[2] = {(int32s)least, (int32s)least};
    for (int i = 0; i < GROUP; i += 2 * LANES)
        for (int k = 0; k < 2; k++) most[k] = larger_whole(most[k], (int32s)load(from + i + k * LANES) & unsign);
    int32s x = larger_whole(most[0], most[1]);
    FOLD(larger_whole, x);
    const int32_t a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3], bits = a > b ? a : b;
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest;
}

/* sum + the four numbers in each cell */
ALWAYS_INLINE int32s add_bytes(int32s sum, int32s cells) {
#if defined(__AVX512VNNI__)
    return (int32s)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi8(1), (__m512i)cells);
#elif defined(__AVXVNNI__)
    return (int32s)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi8(1), (__m256i)cells);
#else
    for (int i = 0; i < 32; i += 8) sum += cells << (24 - i) >> 24;
    return sum;
#endif
}

/* Adding this rounds a small number to a whole one, which is then the lowest bits. */
static const float WHOLE = 12582912; /* 1.5 * 2^23 */

/* n <= GROUP numbers -> DATA_CELLS cells, with `added` to each number, and their scale, which is infinite or no number
 * where one of them is. Returns sums of the integers if nothing is added. A cell's four numbers lie LANES apart, in
 * rows as in weights: so no number has to move within a vector. */
ALWAYS_INLINE int32s pack_group(const float *from, int64_t n, const int32_t added, float *cells) {
    float some[GROUP];
    if (n < GROUP) {
        memset(some, 0, sizeof some);
        memcpy(some, from, (size_t)n * sizeof *from);
        from = some;
    }
    const float largest = largest_of_group(from), inverse = 127 / largest;
    int32s sums = {0};
    for (int i = 0; i < GROUP; i += STRETCH) {
        int32s four = {0};
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            four |= (((int32s)(load(from + i + j * LANES) * inverse + WHOLE) + added) & 255) << 8 * j;
        store(cells + i / 4, (vec)four);
        sums = add_bytes(sums, four);
    }
    cells[DATA_CELLS] = largest * (1.0f / 127);
    return sums;
}

/* n numbers of a row that follow each other -> groups_of(n) groups of ROW_CELLS. */
static inline void pack_row(const float *from, int64_t n, float *cells) {
    for (int64_t i = 0; i < n; i += GROUP, cells += ROW_CELLS) {
        int32s sums = pack_group(from + i, n - i < GROUP ? n - i : GROUP, 0, cells);
        FOLD(plus_whole, sums);
        const int32_t start = -ADDED * (sums[0] + sums[1] + (sums[2] + sums[3]));
        memcpy(cells + DATA_CELLS + 1, &start, sizeof start);
    }
}

/* The same of weights: groups of WEIGHT_CELLS. */
static inline void pack_weights(const float *from, int64_t n, float *cells) {
    for (int64_t i = 0; i < n; i += GROUP, cells += WEIGHT_CELLS)
        pack_group(from + i, n - i < GROUP ? n - i : GROUP, ADDED, cells);
}

/* sum + the products of a cell of a row and a vector of cells of weights */
ALWAYS_INLINE int32s multiply_bytes(int32s sum, int32_t left, vec right) {
#if defined(__AVX512VNNI__)
    return (int32s)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)right, _mm512_set1_epi32(left));
#elif defined(__AVXVNNI__)
    return (int32s)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)right, _mm256_set1_epi32(left));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (int32s)vdotq_s32((int32x4_t)sum, (int8x16_t)right, vreinterpretq_s8_s32(vdupq_n_s32(left)));
#else
    const int32s r = (int32s)right;
    for (int i = 0; i < 32; i += 8) sum += (r >> i & 255) * (int32_t)(int8_t)(left >> i);
    return sum;
#endif
}

ALWAYS_INLINE int32_t as_int(const float *cell) {
    int32_t i;
    memcpy(&i, cell, sizeof i);
    return i;
}

/* As multiply() of isa.h, but of groups, b: [groups][WEIGHT_CELLS][COLUMNS]. p->depth: of their data cells; the last
 * group may be shorter than the rest. */
ALWAYS_INLINE void multiply_groups_of(const block *p, const int rows, const int vecs) {
    const float *a = p->a, *b = p->b;
    const int64_t a_row = p->a_row;
    for (int i = 0; i < rows && !p->add; i++)
        for (int v = 0; v < vecs; v++) store(p->c + i * p->c_row + v * LANES, (vec){0});
    for (int64_t left = p->depth; left > 0; left -= DATA_CELLS, a += ROW_CELLS, b += WEIGHT_CELLS * COLUMNS) {
        const int64_t cells = left < DATA_CELLS ? left : DATA_CELLS;
        int32s sum[ROWS][VECS];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++) sum[i][v] = (int32s){0} + as_int(a + i * a_row + DATA_CELLS + 1);
        for (int64_t k = 0; k < cells; k++) {
            vec right[VECS];
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++) right[v] = load(b + k * COLUMNS + v * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                const int32_t cell = as_int(a + i * a_row + k);
#pragma GCC unroll 3
                for (int v = 0; v < vecs; v++) sum[i][v] = multiply_bytes(sum[i][v], cell, right[v]);
            }
        }
        __asm__ volatile("" ::: "memory"); /* else gcc takes c from one group to the next in memory of its own */
        vec scale[VECS];
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) scale[v] = load(b + DATA_CELLS * COLUMNS + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const float row_scale = a[i * a_row + DATA_CELLS];
            float *c = p->c + i * p->c_row;
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++)
                store(c + v * LANES,
                      load(c + v * LANES) + __builtin_convertvector(sum[i][v], vec) * scale[v] * row_scale);
        }
    }
}

/* Any number of rows. */
ALWAYS_INLINE void multiply_all_groups(block p, int64_t rows, const int vecs) {
    for (; rows >= ROWS; rows -= ROWS) {
        multiply_groups_of(&p, ROWS, vecs);
        p.a += ROWS * p.a_row;
        p.c += ROWS * p.c_row;
    }
    for (; rows > 0; rows--) {
        multiply_groups_of(&p, 1, vecs);
        p.a += p.a_row;
        p.c += p.c_row;
    }
}

/* Only as many whole vectors as `columns` columns need. */
ALWAYS_INLINE void multiply_groups(block p, int64_t rows, int64_t columns) {
    if (columns <= LANES)
        multiply_all_groups(p, rows, 1);
    else if (columns <= 2 * LANES)
        multiply_all_groups(p, rows, 2);
    else
        multiply_all_groups(p, rows, VECS);
}

#endif
