#include "diffusion/sample/rng.h"

#include "base/str.h"

#include <math.h>

#define TWO_PI 6.283185307179586

const char *const rng_names[] = {"cuda", "cpu", NULL};

bool rng_kind_from_name(const char *name, rng_kind *out) {
    if (str_ieq(name, "gpu") || str_ieq(name, "nv")) name = rng_names[RNG_CUDA]; /* as A1111 calls it */
    for (int i = 0; rng_names[i]; i++) {
        if (!str_ieq(name, rng_names[i])) continue;
        *out = (rng_kind)i;
        return true;
    }
    return false;
}

/* ---- Philox ----------------------------------------------------------------------------------------------------- */

void rng_philox(uint32_t c[4], const uint32_t key[2]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c[0] * 0xD2511F53u;
        uint64_t b = (uint64_t)c[2] * 0xCD9E8D57u;
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
        c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* One value per block: the sine half of Box-Muller over the block's first two words, with the constants rounded to
 * float as CUDA has them. */
static void cuda_normal(const rng *r, uint32_t call, float *out) {
    const double scale = 2.3283064e-10f, scale_2pi = (float)(2.3283064e-10 * 6.2831855);
    const uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};
    for (size_t i = 0; i < r->n; i++) {
        uint32_t c[4] = {call, 0, (uint32_t)i, 0};
        rng_philox(c, key);
        double u = c[0] * scale + scale / 2;
        double v = c[1] * scale_2pi + scale_2pi / 2;
        out[i] = (float)(sqrt(-2.0 * log(u)) * sin(v));
    }
}

/* ---- mt19937, and torch's two ways from it to normal values ---------------------------------------------------------
 */

static void mt_seed(mt19937 *m, uint32_t seed) {
    m->word[0] = seed;
    for (uint32_t i = 1; i < 624; i++) {
        uint32_t prev = m->word[i - 1];
        m->word[i] = 1812433253u * (prev ^ (prev >> 30)) + i;
    }
    m->used = 624;
}

static void mt_refill(mt19937 *m) {
    uint32_t *w = m->word;
    for (int i = 0; i < 624; i++) {
        uint32_t y = (w[i] & 0x80000000u) | (w[(i + 1) % 624] & 0x7fffffffu);
        w[i] = w[(i + 397) % 624] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0);
    }
    m->used = 0;
}

static uint32_t mt_next(mt19937 *m) {
    if (m->used == 624) mt_refill(m);
    uint32_t y = m->word[m->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float uniform_float(mt19937 *m) {
    return (float)(mt_next(m) & 0xffffffu) * 0x1p-24f;
}

static double uniform_double(mt19937 *m) {
    uint64_t high = mt_next(m);
    uint64_t bits = (high << 32) | mt_next(m);
    return (double)(bits & ((1ull << 53) - 1)) * 0x1p-53;
}

/* In place: 16 uniform values become normal; value j pairs with value j + 8. */
static void normal_16(float v[16]) {
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * logf(1.0f - v[j]));
        float theta = (float)TWO_PI * v[j + 8];
        v[j] = radius * cosf(theta);
        v[j + 8] = radius * sinf(theta);
    }
}

/* n >= 16: blocks of 16; when n is no multiple of 16, the last 16 values are drawn anew. */
static void cpu_normal_blocks(rng *r, float *out) {
    size_t n = r->n;
    for (size_t i = 0; i < n; i++) out[i] = uniform_float(&r->mt);
    for (size_t i = 0; i + 16 <= n; i += 16) normal_16(out + i);
    if (n % 16 == 0) return;
    float *tail = out + n - 16;
    for (int i = 0; i < 16; i++) tail[i] = uniform_float(&r->mt);
    normal_16(tail);
}

/* n < 16: pairs in double; the second of a pair is kept for the next value, also across calls. */
static void cpu_normal_pairs(rng *r, float *out) {
    for (size_t i = 0; i < r->n; i++) {
        if (r->has_spare) {
            out[i] = (float)r->spare;
            r->has_spare = false;
            continue;
        }
        double theta = TWO_PI * uniform_double(&r->mt);
        double radius = sqrt(-2.0 * log1p(-uniform_double(&r->mt)));
        out[i] = (float)(radius * cos(theta));
        r->spare = radius * sin(theta);
        r->has_spare = true;
    }
}

static void cpu_restart(rng *r) {
    mt_seed(&r->mt, (uint32_t)r->seed); /* torch takes the low half as well */
    r->has_spare = false;
    r->next = 0;
}

static void cpu_normal(rng *r, uint32_t call, float *out) {
    if (call < r->next) cpu_restart(r);
    for (;;) {
        if (r->n < 16)
            cpu_normal_pairs(r, out);
        else
            cpu_normal_blocks(r, out);
        if (r->next++ == call) return;
    }
}

void rng_init(rng *r, rng_kind kind, uint64_t seed, size_t n) {
    *r = (rng){.kind = kind, .seed = seed, .n = n};
    if (kind == RNG_CPU) cpu_restart(r);
}

void rng_normal(rng *r, uint32_t call, float *out) {
    if (r->kind == RNG_CPU)
        cpu_normal(r, call, out);
    else
        cuda_normal(r, call, out);
}
