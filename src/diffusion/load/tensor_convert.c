/* tensor_convert.c - see tensor_convert.h. */
#include "diffusion/load/tensor_convert.h"

#include <math.h>
#include <string.h>

enum { PIECE = TENSOR_CONVERT_PIECE };

static bool is_ggml_float(tensor_type t) {
    return t < TENSOR_U8 && t != TENSOR_F32 && t != TENSOR_F64 && ggml_get_type_traits((enum ggml_type)t)->to_float;
}

bool tensor_convert_can(tensor_type from) {
    if (from >= TENSOR_U8) return tensor_type_is_valid(from);
    switch (from) {
    case TENSOR_F32:
    case TENSOR_F64:
    case TENSOR_I8:
    case TENSOR_I16:
    case TENSOR_I32:
    case TENSOR_I64:
        return true;
    default:
        return is_ggml_float(from);
    }
}

/* 1 sign, 4 exponent (bias 7), 3 mantissa bits; the all-ones pattern is NaN, the rest of its exponent are numbers. */
static float f8_e4m3(unsigned char v) {
    int exponent = v >> 3 & 15, mantissa = v & 7;
    if ((v & 0x7f) == 0x7f) return NAN;
    float m = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return v & 0x80 ? -m : m;
}

/* The upper half of an IEEE half. */
static float f8_e5m2(unsigned char v) {
    return ggml_fp16_to_fp32((ggml_fp16_t)(v << 8));
}

/* One conversion loop per plain type; the source may be unaligned, so each number is copied out. */
#define CONVERT_PLAIN(type, value)                                                                                     \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type v;                                                                                                        \
        memcpy(&v, (const char *)src + (size_t)i * sizeof v, sizeof v);                                                \
        dst[i] = (float)(value);                                                                                       \
    }                                                                                                                  \
    break

/* ggml's own converters expect aligned blocks. */
static void convert_ggml(tensor_type from, const void *src, float *dst, int64_t n) {
    _Alignas(32) unsigned char aligned[PIECE * sizeof(float)]; /* no type of ggml's takes more per number */
    size_t bytes = (size_t)(n / tensor_type_block_len(from) * tensor_type_block_bytes(from));
    memcpy(aligned, src, bytes);
    ggml_get_type_traits((enum ggml_type)from)->to_float(aligned, dst, n);
}

void tensor_convert_f32(tensor_type from, const void *src, float *dst, int64_t n) {
    switch (from) {
    case TENSOR_F32:
        memcpy(dst, src, (size_t)n * sizeof *dst);
        break;
    case TENSOR_F64:
        CONVERT_PLAIN(double, v);
    case TENSOR_I8:
        CONVERT_PLAIN(int8_t, v);
    case TENSOR_I16:
        CONVERT_PLAIN(int16_t, v);
    case TENSOR_I32:
        CONVERT_PLAIN(int32_t, v);
    case TENSOR_I64:
        CONVERT_PLAIN(int64_t, v);
    case TENSOR_U8:
        CONVERT_PLAIN(uint8_t, v);
    case TENSOR_BOOL:
        CONVERT_PLAIN(uint8_t, v ? 1 : 0);
    case TENSOR_U16:
        CONVERT_PLAIN(uint16_t, v);
    case TENSOR_U32:
        CONVERT_PLAIN(uint32_t, v);
    case TENSOR_U64:
        CONVERT_PLAIN(uint64_t, v);
    case TENSOR_F8_E4M3:
        CONVERT_PLAIN(unsigned char, f8_e4m3(v));
    case TENSOR_F8_E5M2:
        CONVERT_PLAIN(unsigned char, f8_e5m2(v));
    default:
        convert_ggml(from, src, dst, n);
        break;
    }
}

void tensor_convert_f16(tensor_type from, const void *src, ggml_fp16_t *dst, int64_t n) {
    if (from == TENSOR_F16) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    float wide[PIECE];
    tensor_convert_f32(from, src, wide, n);
    ggml_fp32_to_fp16_row(wide, dst, n);
}

bool tensor_convert_bf16_fits_f16(const void *src, int64_t n) {
    const uint16_t largest = 0x477f; /* 65280; the next bf16 is 65536 */
    uint16_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, (const char *)src + (size_t)i * sizeof v, sizeof v);
        v &= 0x7fff;
        most = v > most ? v : most;
    }
    return most <= largest;
}
