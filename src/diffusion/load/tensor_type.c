/* tensor_type.c - see tensor_type.h. */
#include "diffusion/load/tensor_type.h"

typedef struct type_traits {
    tensor_type type;
    const char *name;
    int len, bytes, align;
} type_traits;

static const type_traits TRAITS[] = {
    {TENSOR_F32, "f32", 1, 4, 4},
    {TENSOR_F16, "f16", 1, 2, 2},
    {TENSOR_Q4_0, "q4_0", 32, 18, 2},
    {TENSOR_Q4_1, "q4_1", 32, 20, 2},
    {TENSOR_Q5_0, "q5_0", 32, 22, 2},
    {TENSOR_Q5_1, "q5_1", 32, 24, 2},
    {TENSOR_Q8_0, "q8_0", 32, 34, 2},
    {TENSOR_Q8_1, "q8_1", 32, 36, 2},
    {TENSOR_Q2_K, "q2_K", 256, 84, 2},
    {TENSOR_Q3_K, "q3_K", 256, 110, 2},
    {TENSOR_Q4_K, "q4_K", 256, 144, 2},
    {TENSOR_Q5_K, "q5_K", 256, 176, 2},
    {TENSOR_Q6_K, "q6_K", 256, 210, 2},
    {TENSOR_Q8_K, "q8_K", 256, 292, 4},
    {TENSOR_IQ2_XXS, "iq2_xxs", 256, 66, 2},
    {TENSOR_IQ2_XS, "iq2_xs", 256, 74, 2},
    {TENSOR_IQ3_XXS, "iq3_xxs", 256, 98, 2},
    {TENSOR_IQ1_S, "iq1_s", 256, 50, 2},
    {TENSOR_IQ4_NL, "iq4_nl", 32, 18, 2},
    {TENSOR_IQ3_S, "iq3_s", 256, 110, 2},
    {TENSOR_IQ2_S, "iq2_s", 256, 82, 2},
    {TENSOR_IQ4_XS, "iq4_xs", 256, 136, 2},
    {TENSOR_I8, "i8", 1, 1, 1},
    {TENSOR_I16, "i16", 1, 2, 2},
    {TENSOR_I32, "i32", 1, 4, 4},
    {TENSOR_I64, "i64", 1, 8, 8},
    {TENSOR_F64, "f64", 1, 8, 8},
    {TENSOR_IQ1_M, "iq1_m", 256, 56, 2},
    {TENSOR_BF16, "bf16", 1, 2, 2},
    {TENSOR_TQ1_0, "tq1_0", 256, 54, 2},
    {TENSOR_TQ2_0, "tq2_0", 256, 66, 2},
    {TENSOR_MXFP4, "mxfp4", 32, 17, 1},
    {TENSOR_NVFP4, "nvfp4", 64, 36, 1},
    {TENSOR_Q1_0, "q1_0", 128, 18, 2},
    {TENSOR_Q2_0, "q2_0", 64, 18, 2},
    {TENSOR_U8, "u8", 1, 1, 1},
    {TENSOR_BOOL, "bool", 1, 1, 1},
    {TENSOR_U16, "u16", 1, 2, 2},
    {TENSOR_U32, "u32", 1, 4, 4},
    {TENSOR_U64, "u64", 1, 8, 8},
    {TENSOR_F8_E4M3, "f8_e4m3", 1, 1, 1},
    {TENSOR_F8_E5M2, "f8_e5m2", 1, 1, 1},
};

static const type_traits *traits_of(int64_t type) {
    for (size_t i = 0; i < sizeof TRAITS / sizeof *TRAITS; i++)
        if ((int64_t)TRAITS[i].type == type) return &TRAITS[i];
    return NULL;
}

const char *tensor_type_name(tensor_type type) {
    const type_traits *t = traits_of(type);
    return t ? t->name : "?";
}

int tensor_type_block_len(tensor_type type) {
    const type_traits *t = traits_of(type);
    return t ? t->len : 0;
}

int tensor_type_block_bytes(tensor_type type) {
    const type_traits *t = traits_of(type);
    return t ? t->bytes : 0;
}

int tensor_type_align(tensor_type type) {
    const type_traits *t = traits_of(type);
    return t ? t->align : 0;
}

bool tensor_type_is_valid(int64_t type) {
    return traits_of(type) != NULL;
}

bool tensor_type_is_quantized(tensor_type type) {
    return tensor_type_block_len(type) > 1;
}

bool tensor_type_size(tensor_type type, const int64_t ne[4], int64_t *bytes) {
    const type_traits *t = traits_of(type);
    if (!t || ne[0] % t->len != 0) return false;
    int64_t n = 1;
    bool is_empty = false;
    for (int i = 0; i < 4; i++) {
        if (ne[i] < 0) return false;
        if (ne[i] == 0) {
            is_empty = true; /* the other dimensions must still not overflow */
        } else if (n > INT64_MAX / t->bytes / ne[i]) {
            return false;
        } else {
            n *= ne[i];
        }
    }
    *bytes = is_empty ? 0 : n / t->len * t->bytes;
    return true;
}
