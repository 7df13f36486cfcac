/* buf.h - a growable byte buffer that is born with a maximum.
 *
 * The bytes are always followed by a NUL, so text can be used as a C string. An append that would pass the maximum
 * appends nothing and marks the buffer `full`; checking once at the end is enough. Running out of memory aborts. */
#ifndef MYSTI_BASE_BUF_H
#define MYSTI_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct buf {
    char *data; /* owned; never NULL after the first append; use buf_str() for text */
    size_t len;
    size_t cap;
    size_t max;
    bool full; /* an append was refused */
} buf;

void buf_init(buf *b, size_t max);
void buf_free(buf *b);  /* frees the bytes; the struct is as after buf_init */
void buf_clear(buf *b); /* keeps the memory */

bool buf_append(buf *b, const void *data, size_t len);
bool buf_puts(buf *b, const char *s);
bool buf_putc(buf *b, char c);
bool buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_vprintf(buf *b, const char *fmt, va_list ap);

/* Room for `len` more bytes at the end, to be filled by the caller, who then adds to b->len. NULL when full. */
char *buf_reserve(buf *b, size_t len);

/* Removes the first `n` bytes. */
void buf_consume(buf *b, size_t n);

/* The bytes as a C string, never NULL. */
const char *buf_str(const buf *b);

/* Hands the bytes to the caller, who frees them with free(); the buffer is empty afterwards. */
char *buf_take(buf *b, size_t *len);

#endif
