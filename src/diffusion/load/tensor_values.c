/* tensor_values.c - see tensor_values.h. */
#include "diffusion/load/tensor_values.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float from_bf16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float v;
    memcpy(&v, &wide, sizeof v);
    return v;
}

/* 1 sign, 5 exponent (bias 15), 10 mantissa bits. */
static float from_f16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float v = exponent == 31 ? (mantissa ? NAN : INFINITY)
              : exponent     ? ldexpf((float)(1024 + mantissa), exponent - 25)
                             : ldexpf((float)mantissa, -24);
    return bits & 0x8000 ? -v : v;
}

static float one_value(tensor_type type, const unsigned char *p) {
    float v;
    uint16_t bits;
    if (type == TENSOR_F32) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    memcpy(&bits, p, sizeof bits);
    return type == TENSOR_F16 ? from_f16(bits) : from_bf16(bits);
}

size_t tensor_values_read(const tensor_file *f, const tensor_info *t, float *out, size_t max) {
    if (t->type != TENSOR_F32 && t->type != TENSOR_F16 && t->type != TENSOR_BF16) return 0;
    const size_t width = (size_t)tensor_type_block_bytes(t->type);
    const size_t n = t->nbytes / width < max ? (size_t)(t->nbytes / width) : max;
    unsigned char *raw = mem_alloc(n, width);
    const bool ok = tensor_file_read(f, t, raw, n * width, NULL);
    for (size_t i = 0; ok && i < n; i++) out[i] = one_value(t->type, raw + i * width);
    free(raw);
    return ok ? n : 0;
}
