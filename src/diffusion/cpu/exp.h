/* exp.h - e^x and what is made of it, over whole vectors. */
#ifndef MYSTI_DIFFUSION_CPU_EXP_H
#define MYSTI_DIFFUSION_CPU_EXP_H

#include "diffusion/cpu/isa.h"

/* 2^x for x <= 0, relative error below 2e-7; from -125 down it is 2^-125. x is a whole number n and a rest of at most
 * 1/2, whose power is a polynomial (minimax, 9e-8); n is added to the exponent. */
ALWAYS_INLINE vec exp2_below_zero(vec x) {
    typedef int32_t ints __attribute__((vector_size(LANES * 4)));
    x = larger(x, (vec){0} - 125.0f);
    const vec shifted = x + 12582912.0f; /* 1.5 2^23: adding it rounds to a whole number, in the lowest bits */
    const vec r = x - (shifted - 12582912.0f);
    vec y = r * 1.32647e-3f + 9.67151e-3f;
    y = y * r + 5.550734e-2f;
    y = y * r + 2.4022242e-1f;
    y = y * r + 6.9314698e-1f;
    y = y * r + 1.0f;
    return (vec)((ints)y + ((ints)shifted << 23));
}

#if defined(__AVX512F__)
/* The same with a relative error below 8e-5, enough for what is rounded to bfloat16 (2^-9); from -125 down it is less
 * than 2^-124. */
ALWAYS_INLINE vec exp2_rough(vec x) {
    x = larger(x, (vec){0} - 125.0f);
    const vec whole = _mm512_roundscale_ps(x, 0), r = x - whole;
    const vec y = ((r * 5.517167e-2f + 2.4261114e-1f) * r + 6.9326099e-1f) * r + 9.9992807e-1f;
    return _mm512_scalef_ps(y, whole);
}
#endif

/* x / (1 + e^-x), without a power that grows: (x e^x) / (1 + e^x) where x is negative. */
ALWAYS_INLINE vec silu(vec x) {
    const vec above = larger(x, (vec){0}), below = x - above, e = exp2_below_zero((below - above) * 1.44269504f);
    return (above + below * e) / (1.0f + e);
}

/* y = x a + b, and silu of it. */
ALWAYS_INLINE void scale_plane(const float *x, float *y, int64_t count, float a, float b, const bool with_silu) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec v = load(x + i) * a + b;
        store(y + i, with_silu ? silu(v) : v);
    }
    if (i == count) return;
    const vec v = load_some(x + i, count - i) * a + b;
    store_some(y + i, with_silu ? silu(v) : v, count - i);
}

/* x Phi(x). What lies beyond |x| under the normal curve is Abramowitz & Stegun's 7.1.26, with half of its absolute
 * error of 1.5e-7. */
ALWAYS_INLINE vec gelu(vec x) {
    const vec above = larger(x, (vec){0}), size = above + above - x;
    const vec e = exp2_below_zero(size * size * -0.72134752f); /* e^(-x^2 / 2) */
    const vec t = 1.0f / (1.0f + 0.23164190f * size);
    vec y = t * 0.530702715f - 0.726576014f;
    y = y * t + 0.710706871f;
    y = y * t - 0.142248368f;
    y = y * t + 0.127414796f;
    return above - size * y * t * e;
}

#endif
