/* tensor_convert.h - stored numbers to f32, f16 or as they are, piece by piece. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_CONVERT_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_CONVERT_H

#include "diffusion/load/tensor_type.h"

#include <ggml.h>

/* Numbers per piece: a multiple of every block length. */
enum { TENSOR_CONVERT_PIECE = 8192 };

/* True when `from` can become f32. */
bool tensor_convert_can(tensor_type from);

/* Converts n numbers (a multiple of from's block length, at most TENSOR_CONVERT_PIECE) to f32 or f16. `src` needs no
 * alignment. f16 rounds to nearest; values beyond its range become infinite. */
void tensor_convert_f32(tensor_type from, const void *src, float *dst, int64_t n);
void tensor_convert_f16(tensor_type from, const void *src, ggml_fp16_t *dst, int64_t n);

/* True when every one of n bf16 numbers is finite and within f16's range (±65504). */
bool tensor_convert_bf16_fits_f16(const void *src, int64_t n);

#endif
