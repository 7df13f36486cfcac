/* gguf_write.c - see gguf_write.h, and gguf.c for the format. */
#include "diffusion/load/gguf_write.h"

#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3, HEAD_MAX = 64 << 20, TYPE_U32 = 4, TYPE_STRING = 8 };

static uint64_t padded(uint64_t n) {
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void put_le(buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) buf_putc(b, (char)(v >> (8 * i) & 0xff));
}

static void put_text(buf *b, const char *s) {
    put_le(b, strlen(s), 8);
    buf_puts(b, s);
}

void gguf_writer_init(gguf_writer *g) {
    *g = (gguf_writer){0};
    buf_init(&g->pairs, HEAD_MAX);
    buf_init(&g->tensors, HEAD_MAX);
}

void gguf_writer_free(gguf_writer *g) {
    buf_free(&g->pairs);
    buf_free(&g->tensors);
}

void gguf_writer_str(gguf_writer *g, const char *key, const char *value) {
    put_text(&g->pairs, key);
    put_le(&g->pairs, TYPE_STRING, 4);
    put_text(&g->pairs, value);
    g->pair_count++;
}

void gguf_writer_u32(gguf_writer *g, const char *key, uint32_t value) {
    put_text(&g->pairs, key);
    put_le(&g->pairs, TYPE_U32, 4);
    put_le(&g->pairs, value, 4);
    g->pair_count++;
}

void gguf_writer_tensor(gguf_writer *g, const char *name, const tensor_info *t) {
    put_text(&g->tensors, name);
    put_le(&g->tensors, (uint64_t)t->n_dims, 4);
    for (int i = 0; i < t->n_dims; i++) put_le(&g->tensors, (uint64_t)t->ne[i], 8);
    put_le(&g->tensors, (uint64_t)t->type, 4);
    put_le(&g->tensors, g->end, 8);
    g->end += padded(t->nbytes);
    g->tensor_count++;
}

bool gguf_writer_head(gguf_writer *g, file_out *f, err *e) {
    if (g->pairs.full || g->tensors.full)
        return err_set(e, ERR_TOO_LARGE, "a GGUF head of more than %d bytes", HEAD_MAX);
    buf start;
    buf_init(&start, 64);
    buf_puts(&start, "GGUF");
    put_le(&start, VERSION, 4);
    put_le(&start, g->tensor_count, 8);
    put_le(&start, g->pair_count, 8);
    const size_t len = start.len + g->pairs.len + g->tensors.len;
    bool ok = file_out_write(f, start.data, start.len, e) && file_out_write(f, buf_str(&g->pairs), g->pairs.len, e) &&
              file_out_write(f, buf_str(&g->tensors), g->tensors.len, e) && gguf_writer_pad(f, len, e);
    buf_free(&start);
    return ok;
}

bool gguf_writer_pad(file_out *f, uint64_t nbytes, err *e) {
    static const char zeros[ALIGNMENT];
    return file_out_write(f, zeros, (size_t)(padded(nbytes) - nbytes), e);
}
