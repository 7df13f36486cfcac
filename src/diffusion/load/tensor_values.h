/* tensor_values.h - a few numbers of a tensor, for a look into a file without a tensor library. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_VALUES_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_VALUES_H

#include "diffusion/load/tensor_file.h"

/* Writes the tensor's first `max` numbers at most, and returns how many; 0 when they cannot be read or are neither F32,
 * F16 nor BF16. */
size_t tensor_values_read(const tensor_file *f, const tensor_info *t, float *out, size_t max);

#endif
