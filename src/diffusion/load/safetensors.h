/* safetensors.h - reads a safetensors header: u64 length, JSON, then the tensors' bytes. */
#ifndef MYSTI_DIFFUSION_LOAD_SAFETENSORS_H
#define MYSTI_DIFFUSION_LOAD_SAFETENSORS_H

#include "diffusion/load/tensor_table.h"

/* By the first bytes. */
bool safetensors_is(const unsigned char *data, size_t size);

/* Fills an empty table; on failure the caller frees it all the same. */
bool safetensors_read(tensor_table *t, tensor_input *in, err *e);

#endif
