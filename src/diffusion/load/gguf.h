/* gguf.h - reads a GGUF header (version 2 and 3, little-endian): metadata, tensor list, then aligned data. */
#ifndef MYSTI_DIFFUSION_LOAD_GGUF_H
#define MYSTI_DIFFUSION_LOAD_GGUF_H

#include "diffusion/load/tensor_table.h"

/* By the first bytes. */
bool gguf_is(const unsigned char *data, size_t size);

/* Fills an empty table; on failure the caller frees it all the same. */
bool gguf_read(tensor_table *t, tensor_input *in, err *e);

#endif
