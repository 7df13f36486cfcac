/* gguf_write.h - a GGUF file (version 3) in the making: metadata and tensors are declared first, then the head is
 * written, then the tensors' bytes in the order declared. */
#ifndef MYSTI_DIFFUSION_LOAD_GGUF_WRITE_H
#define MYSTI_DIFFUSION_LOAD_GGUF_WRITE_H

#include "base/buf.h"
#include "base/file.h"
#include "diffusion/load/tensor_file.h"

/* Start with gguf_writer_init(), end with gguf_writer_free(). */
typedef struct gguf_writer {
    buf pairs, tensors;
    uint64_t pair_count, tensor_count;
    uint64_t end; /* of the tensors' data so far, padded */
} gguf_writer;

void gguf_writer_init(gguf_writer *g);
void gguf_writer_free(gguf_writer *g);

void gguf_writer_str(gguf_writer *g, const char *key, const char *value);
void gguf_writer_u32(gguf_writer *g, const char *key, uint32_t value);

/* Shape and type as in `t`, whose type must be one of ggml's. */
void gguf_writer_tensor(gguf_writer *g, const char *name, const tensor_info *t);

/* False when the head is beyond its limit (64 MB), or cannot be written. */
bool gguf_writer_head(gguf_writer *g, file_out *f, err *e);

/* The zeros that belong behind a tensor of this many bytes. */
bool gguf_writer_pad(file_out *f, uint64_t nbytes, err *e);

#endif
