/* few_rows.c - y = x W^T + b of a few rows of x, such as time embeddings: reading the weights is what takes its time.
 * So nothing is turned or packed: a row of weights becomes floats in the first-level cache, and all rows of x are
 * multiplied with it, FEW at a time. Threads share the outputs. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

enum { FEW = 4, ROWS_AHEAD = 8 };

/* sums[i] = row i of x times the weights. */
ALWAYS_INLINE void multiply_rows(const cpu_linear *p, const float *x, const float *weights, const int rows,
                                 float *sums) {
    vec even[FEW] = {{0}}, odd[FEW] = {{0}};
    int64_t k = 0;
    for (; k + 2 * LANES <= p->in; k += 2 * LANES) {
        const vec a = load(weights + k), b = load(weights + k + LANES);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            even[i] += a * load(x + i * p->in + k);
            odd[i] += b * load(x + i * p->in + k + LANES);
        }
    }
    for (int i = 0; i < rows; i++) {
        sums[i] = sum_of(even[i] + odd[i]);
        for (int64_t j = k; j < p->in; j++) sums[i] += weights[j] * x[i * p->in + j];
    }
}

static void multiply_few(const cpu_linear *p, const float *x, const float *weights, int64_t rows, float *sums) {
    switch (rows) {
    case 1:
        multiply_rows(p, x, weights, 1, sums);
        break;
    case 2:
        multiply_rows(p, x, weights, 2, sums);
        break;
    case 3:
        multiply_rows(p, x, weights, 3, sums);
        break;
    default:
        multiply_rows(p, x, weights, FEW, sums);
    }
}

/* One output of all rows. */
static void multiply_output(const cpu_linear *p, int64_t out, const float *weights) {
    for (int64_t t = 0; t < p->t; t += FEW) {
        const int64_t rows = p->t - t < FEW ? p->t - t : FEW;
        float sums[FEW];
        multiply_few(p, p->x + t * p->in, weights, rows, sums);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t bias_row = p->bias_rows ? (t + i) / p->bias_rows : 0, at = (t + i) * p->out + out;
            if (p->bias) sums[i] += p->bias[bias_row * p->out + out];
            p->y[at] = p->add ? sums[i] + p->add[at] : sums[i];
        }
    }
}

static void linear(const cpu_linear *p, int thread, int threads) {
    const cpu_matrix *m = &p->weight;
    cpu_room room = cpu_room_open(m->to_floats ? p->in : 0);
    int64_t first;
    const int64_t count = cpu_share(p->out, thread, threads, &first), end = first + count;
    for (int64_t out = first; out < end; out++) {
        const void *row = matrix_at(m, out, 0);
        if (out + ROWS_AHEAD < end) fetch_ahead(matrix_at(m, out + ROWS_AHEAD, 0), matrix_bytes(m, p->in));
        if (m->to_floats) m->to_floats(row, room.floats, p->in);
        multiply_output(p, out, m->to_floats ? room.floats : row);
    }
    cpu_room_close(&room);
}

extern const cpu_product CPU_NAME(cpu_few_rows);
const cpu_product CPU_NAME(cpu_few_rows) = {.name = CPU_STRING, .precision = CPU_F32, .linear = linear, .group = 1};
