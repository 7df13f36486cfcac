/* tensor_type.h - what the numbers of a stored tensor are, for every type a model file of ours may hold. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_TYPE_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values below 1000 are those of ggml's `enum ggml_type` and of GGUF files; the others occur in safetensors only. */
typedef enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q8_1 = 9,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_Q8_K = 15,
    TENSOR_IQ2_XXS = 16,
    TENSOR_IQ2_XS = 17,
    TENSOR_IQ3_XXS = 18,
    TENSOR_IQ1_S = 19,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ3_S = 21,
    TENSOR_IQ2_S = 22,
    TENSOR_IQ4_XS = 23,
    TENSOR_I8 = 24,
    TENSOR_I16 = 25,
    TENSOR_I32 = 26,
    TENSOR_I64 = 27,
    TENSOR_F64 = 28,
    TENSOR_IQ1_M = 29,
    TENSOR_BF16 = 30,
    TENSOR_TQ1_0 = 34,
    TENSOR_TQ2_0 = 35,
    TENSOR_MXFP4 = 39,
    TENSOR_NVFP4 = 40,
    TENSOR_Q1_0 = 41,
    TENSOR_Q2_0 = 42,

    TENSOR_U8 = 1000,
    TENSOR_BOOL = 1001,
    TENSOR_U16 = 1002,
    TENSOR_U32 = 1003,
    TENSOR_U64 = 1004,
    TENSOR_F8_E4M3 = 1005, /* the "fn" form: no infinities, NaN is 0x7f / 0xff */
    TENSOR_F8_E5M2 = 1006,
} tensor_type;

/* "q4_K", "f8_e4m3"; "?" for a value that is no type. */
const char *tensor_type_name(tensor_type type);

/* Numbers per block (1 for plain types), bytes per block, and the alignment its bytes need; 0 for no type. */
int tensor_type_block_len(tensor_type type);
int tensor_type_block_bytes(tensor_type type);
int tensor_type_align(tensor_type type);

bool tensor_type_is_valid(int64_t type);
bool tensor_type_is_quantized(tensor_type type); /* block-wise: more than one number per block */

/* Bytes of a tensor of this type; false when ne[0] is no multiple of the block length, a dimension is negative, or the
 * product overflows int64. */
bool tensor_type_size(tensor_type type, const int64_t ne[4], int64_t *bytes);

#endif
