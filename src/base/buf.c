/* buf.c - see buf.h. */
#include "base/buf.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(buf *b, size_t max) {
    *b = (buf){.max = max};
}

void buf_free(buf *b) {
    free(b->data);
    buf_init(b, b->max);
}

void buf_clear(buf *b) {
    b->len = 0;
    b->full = false;
    if (b->data) b->data[0] = 0;
}

char *buf_reserve(buf *b, size_t len) {
    if (len > b->max || b->len > b->max - len) {
        b->full = true;
        return NULL;
    }
    size_t need = b->len + len + 1;
    if (need > b->cap) {
        size_t cap = b->cap < 64 ? 64 : b->cap;
        while (cap < need) cap *= 2;
        b->data = mem_resize(b->data, cap);
        b->cap = cap;
    }
    b->data[b->len + len] = 0;
    return b->data + b->len;
}

bool buf_append(buf *b, const void *data, size_t len) {
    char *at = buf_reserve(b, len);
    if (!at) return false;
    if (len) memcpy(at, data, len);
    b->len += len;
    return true;
}

bool buf_puts(buf *b, const char *s) {
    return buf_append(b, s, strlen(s));
}

bool buf_putc(buf *b, char c) {
    return buf_append(b, &c, 1);
}

bool buf_vprintf(buf *b, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) return false;
    char *at = buf_reserve(b, (size_t)n);
    if (!at) return false;
    vsnprintf(at, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
    return true;
}

bool buf_printf(buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bool ok = buf_vprintf(b, fmt, ap);
    va_end(ap);
    return ok;
}

void buf_consume(buf *b, size_t n) {
    if (n >= b->len) {
        b->len = 0;
    } else {
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
    }
    if (b->data) b->data[b->len] = 0;
}

const char *buf_str(const buf *b) {
    return b->data ? b->data : "";
}

char *buf_take(buf *b, size_t *len) {
    buf_reserve(b, 0); /* an empty buffer becomes "" */
    char *data = b->data;
    if (len) *len = b->len;
    buf_init(b, b->max);
    return data ? data : str_dup("");
}
