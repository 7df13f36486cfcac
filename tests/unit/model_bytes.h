/* model_bytes.h - builds model files byte by byte for tests, good ones and bad ones. */
#ifndef MYSTI_TESTS_MODEL_BYTES_H
#define MYSTI_TESTS_MODEL_BYTES_H

#include "base/buf.h"
#include "base/file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- numbers --- */

static inline void put_le(buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) buf_putc(b, (char)(v >> (8 * i) & 0xff));
}

static inline void put_f32(buf *b, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_le(b, bits, 4);
}

static inline void put_pad(buf *b, size_t align) {
    while (b->len % align) buf_putc(b, 0);
}

/* --- safetensors: header text and data, joined --- */

typedef struct st_builder {
    buf header, data;
} st_builder;

static inline void st_init(st_builder *s) {
    buf_init(&s->header, 16 << 20);
    buf_init(&s->data, 256 << 20);
    buf_putc(&s->header, '{');
}

/* dims as JSON ("4,3,2"), outermost first; `bytes` of data, borrowed, or NULL for zeros. */
static inline void st_add(st_builder *s, const char *name, const char *dtype, const char *dims, const void *bytes,
                          size_t len) {
    size_t from = s->data.len;
    char *room = buf_reserve(&s->data, len ? len : 1);
    if (bytes)
        memcpy(room, bytes, len);
    else
        memset(room, 0, len);
    s->data.len += len;
    buf_printf(&s->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
               s->header.len > 1 ? "," : "", name, dtype, dims, from, s->data.len);
}

static inline void st_finish(st_builder *s, buf *out) {
    buf_putc(&s->header, '}');
    while (s->header.len % 8) buf_putc(&s->header, ' ');
    put_le(out, s->header.len, 8);
    buf_append(out, s->header.data, s->header.len);
    if (s->data.len) buf_append(out, s->data.data, s->data.len);
    buf_free(&s->header);
    buf_free(&s->data);
}

/* A file from a header written by hand and `data_len` zeros. */
static inline void st_raw(buf *out, const char *header, size_t data_len) {
    put_le(out, strlen(header), 8);
    buf_puts(out, header);
    for (size_t i = 0; i < data_len; i++) buf_putc(out, 0);
}

/* --- GGUF --- */

static inline void gguf_text(buf *b, const char *s) {
    put_le(b, strlen(s), 8);
    buf_puts(b, s);
}

static inline void gguf_head(buf *b, uint32_t version, uint64_t tensors, uint64_t pairs) {
    buf_puts(b, "GGUF");
    put_le(b, version, 4);
    put_le(b, tensors, 8);
    put_le(b, pairs, 8);
}

static inline void gguf_str(buf *b, const char *key, const char *value) {
    gguf_text(b, key);
    put_le(b, 8, 4);
    gguf_text(b, value);
}

static inline void gguf_num(buf *b, const char *key, uint32_t type, uint64_t bits, int bytes) {
    gguf_text(b, key);
    put_le(b, type, 4);
    put_le(b, bits, bytes);
}

/* dims innermost first. */
static inline void gguf_tensor(buf *b, const char *name, int n, const uint64_t *dims, uint32_t type, uint64_t offset) {
    gguf_text(b, name);
    put_le(b, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) put_le(b, dims[i], 8);
    put_le(b, type, 4);
    put_le(b, offset, 8);
}

/* --- temporary files --- */

/* Writes the bytes to a new file below $TMPDIR; the path is freed by remove_temp(). */
static inline char *write_temp(const buf *b) {
    const char *dir = getenv("TMPDIR");
    char *path = malloc(512);
    snprintf(path, 512, "%s/mysti-test-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || (b->len && write(fd, b->data, b->len) != (ssize_t)b->len)) abort();
    close(fd);
    return path;
}

static inline void remove_temp(char *path) {
    unlink(path);
    free(path);
}

#endif
