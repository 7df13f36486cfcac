/* str.h - allocation that cannot fail, and the string helpers that C lacks. Returned strings are freed with free(). */
#ifndef MYSTI_BASE_STR_H
#define MYSTI_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory / resized memory; out of memory (or count * size overflowing) aborts with a message. */
void *mem_alloc(size_t count, size_t size);
void *mem_resize(void *p, size_t size);

char *str_dup(const char *s); /* NULL stays NULL */
char *str_ndup(const char *s, size_t n);
char *str_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Replaces *dst (freed) by a copy of src. */
void str_set(char **dst, const char *src);

bool str_eq(const char *a, const char *b);  /* NULL equals only NULL */
bool str_ieq(const char *a, const char *b); /* ASCII case ignored */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
bool str_iends(const char *s, const char *suffix);
bool str_icontains(const char *s, const char *part);
bool str_empty(const char *s); /* NULL or "" */

/* Copies with truncation, always terminated; false when it did not fit. */
bool str_copy(char *dst, size_t cap, const char *src);

/* Whole-string numbers; false on anything else, overflow included. */
bool str_to_i64(const char *s, int64_t *out);
bool str_to_u64(const char *s, uint64_t *out);
bool str_to_f64(const char *s, double *out);

/* A picture's size: "512x768", with 'x', 'X' or '*' between; both sides 0..99999. False on anything else. */
bool str_to_size(const char *s, int *width, int *height);

/* The entry of `names` (count n) nearest to `s` by edit distance, or NULL when none is close. */
const char *str_nearest(const char *s, const char *const *names, size_t n);

/* True when the bytes are well-formed UTF-8 (no surrogates, no overlong forms). */
bool str_is_utf8(const char *s, size_t n);

/* How many of the first n bytes form complete UTF-8 characters (0..3 bytes of an unfinished one may follow). */
size_t str_utf8_complete(const char *s, size_t n);

/* FNV-1a, 64 bit: for hash tables and change detection, not for security. */
uint64_t str_hash(const void *data, size_t n, uint64_t seed);

#endif
