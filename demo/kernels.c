/* kernels.c - what PyTorch does slowly on a CPU, for training the demo models: group norm with SiLU, layer norm, GEGLU,
 * and attention with few features a head. Activations are bfloat16, sums float.
 *
 * Built by fast.py into a shared library and called through ctypes; tested against PyTorch in test_training.py. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

static inline float to_float(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static inline bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bf16)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

/* --- Group norm, optionally followed by SiLU -----------------------------------------------------------------------
 */

enum { MAX_CHANNELS = 2048 };

/* Per channel: y = silu(scale x + shift). mean and rstd: [n, groups]. */
static void scale_and_shift(const float *mean, const float *rstd, const float *gamma, const float *beta, int c,
                            int groups, float *scale, float *shift) {
    const int per = c / groups;
    for (int i = 0; i < c; i++) {
        scale[i] = rstd[i / per] * gamma[i];
        shift[i] = beta[i] - mean[i / per] * scale[i];
    }
}

/* x, y: [n, pixels, c]; mean, rstd: [n, groups], written for the way back. */
void group_norm_forward(const bf16 *x, const float *gamma, const float *beta, bf16 *y, float *mean, float *rstd, int n,
                        int pixels, int c, int groups, float eps, int silu) {
#pragma omp parallel for schedule(dynamic)
    for (int s = 0; s < n; s++) {
        float sum[MAX_CHANNELS] = {0}, square[MAX_CHANNELS] = {0}, scale[MAX_CHANNELS], shift[MAX_CHANNELS];
        const bf16 *from = x + (size_t)s * pixels * c;
        bf16 *to = y + (size_t)s * pixels * c;
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < c; i++) {
                const float v = to_float(from[(size_t)p * c + i]);
                sum[i] += v;
                square[i] += v * v;
            }
        const int per = c / groups;
        const float count = (float)per * pixels;
        for (int g = 0; g < groups; g++) {
            float a = 0, b = 0;
            for (int i = g * per; i < (g + 1) * per; i++) a += sum[i], b += square[i];
            const float m = a / count, var = b / count - m * m;
            mean[s * groups + g] = m;
            rstd[s * groups + g] = 1 / sqrtf((var > 0 ? var : 0) + eps);
        }
        scale_and_shift(mean + s * groups, rstd + s * groups, gamma, beta, c, groups, scale, shift);
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < c; i++) {
                const float u = to_float(from[(size_t)p * c + i]) * scale[i] + shift[i];
                to[(size_t)p * c + i] = to_bf16(silu ? u / (1 + expf(-u)) : u);
            }
    }
}

static inline float silu_slope(float u) {
    const float s = 1 / (1 + expf(-u));
    return s * (1 + u * (1 - s));
}

/* dx: [n, pixels, c]; dgamma, dbeta: [n, c], to be summed over n. */
void group_norm_backward(const bf16 *x, const bf16 *dy, const float *gamma, const float *beta, const float *mean,
                         const float *rstd, bf16 *dx, float *dgamma, float *dbeta, int n, int pixels, int c, int groups,
                         int silu) {
#pragma omp parallel for schedule(dynamic)
    for (int s = 0; s < n; s++) {
        float scale[MAX_CHANNELS], shift[MAX_CHANNELS], sum[MAX_CHANNELS] = {0}, dot[MAX_CHANNELS] = {0};
        float a[MAX_CHANNELS], b[MAX_CHANNELS];
        const size_t at = (size_t)s * pixels * c;
        const float *m = mean + s * groups, *r = rstd + s * groups;
        scale_and_shift(m, r, gamma, beta, c, groups, scale, shift);
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < c; i++) {
                const float v = to_float(x[at + (size_t)p * c + i]);
                float d = to_float(dy[at + (size_t)p * c + i]);
                if (silu) d *= silu_slope(v * scale[i] + shift[i]);
                sum[i] += d;
                dot[i] += d * v;
            }
        const int per = c / groups;
        const float count = (float)per * pixels;
        for (int g = 0; g < groups; g++) {
            float s1 = 0, s2 = 0;
            for (int i = g * per; i < (g + 1) * per; i++) {
                const float normal = (dot[i] - m[g] * sum[i]) * r[g]; /* sum of d times the normalised x */
                dgamma[s * c + i] = normal;
                dbeta[s * c + i] = sum[i];
                s1 += sum[i] * gamma[i];
                s2 += normal * gamma[i];
            }
            for (int i = g * per; i < (g + 1) * per; i++) { /* dx = scale d - a x - b */
                a[i] = r[g] * r[g] * s2 / count;
                b[i] = r[g] * s1 / count - a[i] * m[g];
            }
        }
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < c; i++) {
                const float v = to_float(x[at + (size_t)p * c + i]);
                float d = to_float(dy[at + (size_t)p * c + i]);
                if (silu) d *= silu_slope(v * scale[i] + shift[i]);
                dx[at + (size_t)p * c + i] = to_bf16(scale[i] * d - a[i] * v - b[i]);
            }
    }
}

/* --- Layer norm ------------------------------------------------------------------------------------------------------
 */

/* x, y: [rows, c]; mean, rstd: [rows]. */
void layer_norm_forward(const bf16 *x, const float *gamma, const float *beta, bf16 *y, float *mean, float *rstd,
                        int rows, int c, float eps) {
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r++) {
        const bf16 *from = x + (size_t)r * c;
        float sum = 0, square = 0;
        for (int i = 0; i < c; i++) sum += to_float(from[i]), square += to_float(from[i]) * to_float(from[i]);
        const float m = sum / c, var = square / c - m * m, s = 1 / sqrtf((var > 0 ? var : 0) + eps);
        mean[r] = m;
        rstd[r] = s;
        for (int i = 0; i < c; i++) y[(size_t)r * c + i] = to_bf16((to_float(from[i]) - m) * s * gamma[i] + beta[i]);
    }
}

/* dgamma, dbeta: [c], zero on entry. */
void layer_norm_backward(const bf16 *x, const bf16 *dy, const float *gamma, const float *mean, const float *rstd,
                         bf16 *dx, float *dgamma, float *dbeta, int rows, int c) {
#pragma omp parallel
    {
        float dg[MAX_CHANNELS] = {0}, db[MAX_CHANNELS] = {0};
#pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) {
            const bf16 *from = x + (size_t)r * c, *slope = dy + (size_t)r * c;
            float s1 = 0, s2 = 0;
            for (int i = 0; i < c; i++) {
                const float d = to_float(slope[i]), normal = (to_float(from[i]) - mean[r]) * rstd[r];
                dg[i] += d * normal;
                db[i] += d;
                s1 += d * gamma[i];
                s2 += d * gamma[i] * normal;
            }
            for (int i = 0; i < c; i++) {
                const float normal = (to_float(from[i]) - mean[r]) * rstd[r];
                dx[(size_t)r * c + i] = to_bf16(rstd[r] * (to_float(slope[i]) * gamma[i] - (s1 + normal * s2) / c));
            }
        }
#pragma omp critical
        for (int i = 0; i < c; i++) dgamma[i] += dg[i], dbeta[i] += db[i];
    }
}

/* --- GEGLU (Shazeer 2020)
 * ------------------------------------------------------------------------------------------------ */

/* The normal distribution function by way of erf (Abramowitz & Stegun 7.1.26, error below 1.5e-7); *density gets its
 * slope. */
static inline float normal_below(float x, float *density) {
    const float z = fabsf(x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z), e = expf(-z * z);
    const float tail =
        0.5f * e * t *
        (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    *density = e * 0.39894228f;
    return x < 0 ? tail : 1 - tail;
}

/* x: [rows, 2 c], the value and then the gate; y: [rows, c] = value times gelu(gate). */
void geglu_forward(const bf16 *x, bf16 *y, int rows, int c) {
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r++) {
        const bf16 *value = x + (size_t)r * 2 * c, *gate = value + c;
        for (int i = 0; i < c; i++) {
            float density;
            const float g = to_float(gate[i]);
            y[(size_t)r * c + i] = to_bf16(to_float(value[i]) * g * normal_below(g, &density));
        }
    }
}

void geglu_backward(const bf16 *x, const bf16 *dy, bf16 *dx, int rows, int c) {
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r++) {
        const bf16 *value = x + (size_t)r * 2 * c, *gate = value + c;
        bf16 *dvalue = dx + (size_t)r * 2 * c, *dgate = dvalue + c;
        for (int i = 0; i < c; i++) {
            float density;
            const float g = to_float(gate[i]), d = to_float(dy[(size_t)r * c + i]), below = normal_below(g, &density);
            dvalue[i] = to_bf16(d * g * below);
            dgate[i] = to_bf16(d * to_float(value[i]) * (below + g * density));
        }
    }
}

/* --- Attention -------------------------------------------------------------------------------------------------------
 */

enum { LANES = 16, ROWS = 4 };
typedef float vec __attribute__((vector_size(LANES * 4)));

/* One head's work: keys and values with a feature a row, padded to whole vectors. */
typedef struct head {
    int keys, padded, d;
    float scale;
    float *k, *v, *dk, *dv; /* [d, padded] */
    float *p, *dp;          /* [ROWS, padded] */
} head;

static head head_new(int keys, int d) {
    head h = {.keys = keys, .padded = (keys + LANES - 1) / LANES * LANES, .d = d, .scale = 1 / sqrtf((float)d)};
    float *mem = aligned_alloc(64, (size_t)h.padded * (4 * d + 2 * ROWS) * sizeof *mem);
    h.k = mem;
    h.v = h.k + (size_t)h.padded * d;
    h.dk = h.v + (size_t)h.padded * d;
    h.dv = h.dk + (size_t)h.padded * d;
    h.p = h.dv + (size_t)h.padded * d;
    h.dp = h.p + ROWS * h.padded;
    return h;
}

static void head_load(const head *h, float *to, const bf16 *from, int c) {
    for (int f = 0; f < h->d; f++)
        for (int j = 0; j < h->padded; j++) to[f * h->padded + j] = j < h->keys ? to_float(from[(size_t)j * c + f]) : 0;
}

static void head_store(const head *h, const float *from, bf16 *to, int c) {
    for (int j = 0; j < h->keys; j++)
        for (int f = 0; f < h->d; f++) to[(size_t)j * c + f] = to_bf16(from[f * h->padded + j]);
}

/* out[ROWS][padded] = rows[ROWS][d] . m[d][padded] */
static void rows_times(const head *h, const float *rows, const float *m, float *out) {
    for (int j = 0; j < h->padded; j += LANES) {
        vec sum[ROWS] = {0};
        for (int f = 0; f < h->d; f++) {
            const vec column = *(const vec *)(m + f * h->padded + j);
            for (int r = 0; r < ROWS; r++) sum[r] += rows[r * h->d + f] * column;
        }
        for (int r = 0; r < ROWS; r++) *(vec *)(out + r * h->padded + j) = sum[r];
    }
}

/* out[ROWS][d] = p[ROWS][padded] . m[d][padded]^T */
static void rows_times_transposed(const head *h, const float *p, const float *m, float *out) {
    for (int f = 0; f < h->d; f++) {
        vec sum[ROWS] = {0};
        for (int j = 0; j < h->padded; j += LANES) {
            const vec column = *(const vec *)(m + f * h->padded + j);
            for (int r = 0; r < ROWS; r++) sum[r] += *(const vec *)(p + r * h->padded + j) * column;
        }
        for (int r = 0; r < ROWS; r++) {
            float total = 0;
            for (int i = 0; i < LANES; i++) total += sum[r][i];
            out[r * h->d + f] = total;
        }
    }
}

/* m[d][padded] += rows[ROWS][d]^T . p[ROWS][padded] */
static void add_outer(const head *h, const float *rows, const float *p, float *m) {
    for (int f = 0; f < h->d; f++)
        for (int j = 0; j < h->padded; j += LANES) {
            vec sum = *(vec *)(m + f * h->padded + j);
            for (int r = 0; r < ROWS; r++) sum += rows[r * h->d + f] * *(const vec *)(p + r * h->padded + j);
            *(vec *)(m + f * h->padded + j) = sum;
        }
}

static void load_rows(const bf16 *from, int c, int d, int rows, float scale, float *to) {
    for (int r = 0; r < ROWS; r++)
        for (int f = 0; f < d; f++) to[r * d + f] = r < rows ? to_float(from[(size_t)r * c + f]) * scale : 0;
}

/* Probabilities of ROWS queries from row `first` on. */
static void probabilities(const head *h, const float *q, int first, int causal) {
    rows_times(h, q, h->k, h->p);
    for (int r = 0; r < ROWS; r++) {
        float *p = h->p + r * h->padded, most = -INFINITY, sum = 0;
        const int seen = causal && first + r + 1 < h->keys ? first + r + 1 : h->keys;
        for (int j = 0; j < seen; j++) most = p[j] > most ? p[j] : most;
        for (int j = 0; j < seen; j++) p[j] = expf(p[j] - most);
        for (int j = 0; j < seen; j++) sum += p[j];
        const float inverse = 1 / sum;
        for (int j = 0; j < seen; j++) p[j] *= inverse;
        for (int j = seen; j < h->padded; j++) p[j] = 0;
    }
}

/* q, out: [n, queries, heads d]; k, v: [n, keys, heads d]. */
void attention_forward(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, int n, int heads, int queries, int keys,
                       int d, int causal) {
    const int c = heads * d;
#pragma omp parallel
    {
        head h = head_new(keys, d);
        float *rows = malloc((size_t)ROWS * d * 2 * sizeof *rows), *sums = rows + ROWS * d;
#pragma omp for schedule(dynamic)
        for (int i = 0; i < n * heads; i++) {
            const size_t of_q = (size_t)(i / heads) * queries * c + (size_t)(i % heads) * d;
            const size_t of_k = (size_t)(i / heads) * keys * c + (size_t)(i % heads) * d;
            head_load(&h, h.k, k + of_k, c);
            head_load(&h, h.v, v + of_k, c);
            for (int t = 0; t < queries; t += ROWS) {
                const int count = queries - t < ROWS ? queries - t : ROWS;
                load_rows(q + of_q + (size_t)t * c, c, d, count, h.scale, rows);
                probabilities(&h, rows, t, causal);
                rows_times_transposed(&h, h.p, h.v, sums);
                for (int r = 0; r < count; r++)
                    for (int f = 0; f < d; f++) out[of_q + (size_t)(t + r) * c + f] = to_bf16(sums[r * d + f]);
            }
        }
        free(h.k);
        free(rows);
    }
}

/* Probabilities are made again rather than kept (Dao et al. 2022, algorithm 4). */
void attention_backward(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, bf16 *dq, bf16 *dk, bf16 *dv,
                        int n, int heads, int queries, int keys, int d, int causal) {
    const int c = heads * d;
#pragma omp parallel
    {
        head h = head_new(keys, d);
        float *rows = malloc((size_t)ROWS * d * 3 * sizeof *rows), *douts = rows + ROWS * d, *dqs = douts + ROWS * d;
#pragma omp for schedule(dynamic)
        for (int i = 0; i < n * heads; i++) {
            const size_t of_q = (size_t)(i / heads) * queries * c + (size_t)(i % heads) * d;
            const size_t of_k = (size_t)(i / heads) * keys * c + (size_t)(i % heads) * d;
            head_load(&h, h.k, k + of_k, c);
            head_load(&h, h.v, v + of_k, c);
            memset(h.dk, 0, (size_t)h.padded * d * 2 * sizeof *h.dk); /* dk and dv */
            for (int t = 0; t < queries; t += ROWS) {
                const int count = queries - t < ROWS ? queries - t : ROWS;
                load_rows(q + of_q + (size_t)t * c, c, d, count, h.scale, rows);
                load_rows(dout + of_q + (size_t)t * c, c, d, count, 1, douts);
                probabilities(&h, rows, t, causal);
                add_outer(&h, douts, h.p, h.dv);
                rows_times(&h, douts, h.v, h.dp);
                for (int r = 0; r < ROWS; r++) {
                    float *p = h.p + r * h.padded, *dp = h.dp + r * h.padded, mean = 0;
                    for (int j = 0; j < h.padded; j++) mean += p[j] * dp[j];
                    for (int j = 0; j < h.padded; j++) dp[j] = p[j] * (dp[j] - mean);
                }
                add_outer(&h, rows, h.dp, h.dk);
                rows_times_transposed(&h, h.dp, h.k, dqs);
                for (int r = 0; r < count; r++)
                    for (int f = 0; f < d; f++) dq[of_q + (size_t)(t + r) * c + f] = to_bf16(dqs[r * d + f] * h.scale);
            }
            head_store(&h, h.dk, dk + of_k, c);
            head_store(&h, h.dv, dv + of_k, c);
        }
        free(h.k);
        free(rows);
    }
}
