/* kernels.c - what PyTorch does slowly on a CPU in training the language model: RMS norm with the sum before it,
 * rotary positions, causal softmax, SwiGLU and cross entropy, each forward and backward. Activations are bfloat16, the
 * residual stream and all sums float.
 *
 * Built by fast.py into a shared library and called through ctypes. One thread. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
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

/* --- sum = x + delta; y = sum / rms(sum) * weight ------------------------------------------------------------------
 */

/* x, sum: [rows, c]; delta, y: bf16 [rows, c]; rstd: [rows], kept for the way back. */
void add_norm_forward(const float *x, const bf16 *delta, const float *weight, float *sum, bf16 *y, float *rstd,
                      int rows, int c, float eps) {
    for (int r = 0; r < rows; r++, x += c, delta += c, sum += c, y += c) {
        float square = 0;
        for (int i = 0; i < c; i++) {
            const float v = x[i] + to_float(delta[i]);
            sum[i] = v;
            square += v * v;
        }
        const float k = rstd[r] = 1 / sqrtf(square / (float)c + eps);
        for (int i = 0; i < c; i++) y[i] = to_bf16(sum[i] * k * weight[i]);
    }
}

/* dsum: what flows back through the residual stream. dx: [rows, c]; ddelta: the same in bf16; dweight: [c], summed. */
void add_norm_backward(const float *dsum, const bf16 *dy, const float *sum, const float *weight, const float *rstd,
                       float *dx, bf16 *ddelta, float *dweight, int rows, int c) {
    memset(dweight, 0, (size_t)c * sizeof *dweight);
    for (int r = 0; r < rows; r++, dsum += c, dy += c, sum += c, dx += c, ddelta += c) {
        const float k = rstd[r];
        float dot = 0;
        for (int i = 0; i < c; i++) {
            const float g = to_float(dy[i]);
            dot += g * weight[i] * sum[i];
            dweight[i] += g * sum[i] * k;
        }
        const float pull = dot * k * k * k / (float)c;
        for (int i = 0; i < c; i++) {
            const float v = dsum[i] + to_float(dy[i]) * weight[i] * k - sum[i] * pull;
            dx[i] = v;
            ddelta[i] = to_bf16(v);
        }
    }
}

/* --- rotary positions: qkv [batch, t, 3, heads, d] -> three of [batch, heads, t, d] ---------------------------------
 */

/* cosine, sine: [t, d / 2]. Queries are also scaled. sign -1 turns back: then `parts` is read and qkv written. */
static void turn(const float *cosine, const float *sine, const bf16 *from, bf16 *to, int d, float scale, float sign) {
    for (int i = 0; i < d / 2; i++) {
        const float a = to_float(from[2 * i]), b = to_float(from[2 * i + 1]), s = sine[i] * sign;
        to[2 * i] = to_bf16((a * cosine[i] - b * s) * scale);
        to[2 * i + 1] = to_bf16((a * s + b * cosine[i]) * scale);
    }
}

void split_forward(const bf16 *qkv, const float *cosine, const float *sine, bf16 *q, bf16 *k, bf16 *v, int batch, int t,
                   int heads, int d, float scale) {
    for (int b = 0; b < batch; b++)
        for (int p = 0; p < t; p++)
            for (int h = 0; h < heads; h++) {
                const bf16 *from = qkv + (((size_t)b * t + p) * 3 * heads + h) * d;
                const size_t to = (((size_t)b * heads + h) * t + p) * d;
                const float *c = cosine + (size_t)p * d / 2, *s = sine + (size_t)p * d / 2;
                turn(c, s, from, q + to, d, scale, 1);
                turn(c, s, from + (size_t)heads * d, k + to, d, 1, 1);
                memcpy(v + to, from + (size_t)2 * heads * d, (size_t)d * sizeof *v);
            }
}

void split_backward(bf16 *dqkv, const float *cosine, const float *sine, const bf16 *dq, const bf16 *dk, const bf16 *dv,
                    int batch, int t, int heads, int d, float scale) {
    for (int b = 0; b < batch; b++)
        for (int p = 0; p < t; p++)
            for (int h = 0; h < heads; h++) {
                bf16 *to = dqkv + (((size_t)b * t + p) * 3 * heads + h) * d;
                const size_t from = (((size_t)b * heads + h) * t + p) * d;
                const float *c = cosine + (size_t)p * d / 2, *s = sine + (size_t)p * d / 2;
                turn(c, s, dq + from, to, d, scale, -1);
                turn(c, s, dk + from, to + (size_t)heads * d, d, 1, -1);
                memcpy(to + (size_t)2 * heads * d, dv + from, (size_t)d * sizeof *dv);
            }
}

/* [batch, a, b, d] -> [batch, b, a, d] */
void swap_axes(const bf16 *from, bf16 *to, int batch, int a, int b, int d) {
    for (int n = 0; n < batch; n++)
        for (int i = 0; i < a; i++)
            for (int j = 0; j < b; j++)
                memcpy(to + (((size_t)n * b + j) * a + i) * d, from + (((size_t)n * a + i) * b + j) * d,
                       (size_t)d * sizeof *to);
}

/* --- causal softmax over the rows of n squares of t x t, in place ---------------------------------------------------
 */

enum { MAX_LENGTH = 4096 };

void softmax_forward(bf16 *scores, int n, int t) {
    float e[MAX_LENGTH];
    for (int s = 0; s < n; s++)
        for (int p = 0; p < t; p++, scores += t) {
            float most = -INFINITY, sum = 0;
            for (int i = 0; i <= p; i++) e[i] = to_float(scores[i]), most = e[i] > most ? e[i] : most;
            for (int i = 0; i <= p; i++) e[i] = expf(e[i] - most), sum += e[i];
            const float k = 1 / sum;
            for (int i = 0; i <= p; i++) scores[i] = to_bf16(e[i] * k);
            memset(scores + p + 1, 0, (size_t)(t - p - 1) * sizeof *scores);
        }
}

/* The gradient of the weights becomes that of the scores. */
void softmax_backward(const bf16 *weights, bf16 *grad, int n, int t) {
    for (int s = 0; s < n; s++)
        for (int p = 0; p < t; p++, weights += t, grad += t) {
            float dot = 0;
            for (int i = 0; i <= p; i++) dot += to_float(weights[i]) * to_float(grad[i]);
            for (int i = 0; i <= p; i++) grad[i] = to_bf16(to_float(weights[i]) * (to_float(grad[i]) - dot));
            memset(grad + p + 1, 0, (size_t)(t - p - 1) * sizeof *grad);
        }
}

/* --- SwiGLU: [rows, gate f, up f] -> silu(gate) * up [rows, f] ------------------------------------------------------
 */

void swiglu_forward(const bf16 *x, bf16 *y, int rows, int f) {
    for (int r = 0; r < rows; r++, x += 2 * f, y += f)
        for (int i = 0; i < f; i++) {
            const float g = to_float(x[i]);
            y[i] = to_bf16(g / (1 + expf(-g)) * to_float(x[f + i]));
        }
}

void swiglu_backward(const bf16 *x, const bf16 *dy, bf16 *dx, int rows, int f) {
    for (int r = 0; r < rows; r++, x += 2 * f, dx += 2 * f, dy += f)
        for (int i = 0; i < f; i++) {
            const float g = to_float(x[i]), up = to_float(x[f + i]), d = to_float(dy[i]), s = 1 / (1 + expf(-g));
            dx[i] = to_bf16(d * up * s * (1 + g * (1 - s)));
            dx[f + i] = to_bf16(d * g * s);
        }
}

/* --- cross entropy --------------------------------------------------------------------------------------------------
 */

/* logits: [rows, v], which become the gradient of the mean loss; each row counts by its weight, and the weights add up
 * to one. Returns that mean. */
float cross_entropy(bf16 *logits, const int64_t *targets, const float *weights, int rows, int v) {
    float e[MAX_LENGTH], total = 0;
    for (int r = 0; r < rows; r++, logits += v) {
        if (weights[r] == 0) {
            memset(logits, 0, (size_t)v * sizeof *logits);
            continue;
        }
        float most = -INFINITY, sum = 0;
        for (int i = 0; i < v; i++) e[i] = to_float(logits[i]), most = e[i] > most ? e[i] : most;
        const float wanted = e[targets[r]];
        for (int i = 0; i < v; i++) e[i] = expf(e[i] - most), sum += e[i];
        total += weights[r] * (logf(sum) + most - wanted);
        const float k = weights[r] / sum;
        e[targets[r]] -= sum;
        for (int i = 0; i < v; i++) logits[i] = to_bf16(e[i] * k);
    }
    return total;
}
