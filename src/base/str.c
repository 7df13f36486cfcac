/* str.c - see str.h. */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void die_of_memory(size_t size) {
    fprintf(stderr, "out of memory (%zu bytes)\n", size);
    abort();
}

void *mem_alloc(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) die_of_memory(count * size);
    return p;
}

void *mem_resize(void *p, size_t size) {
    void *q = realloc(p, size ? size : 1);
    if (!q) die_of_memory(size);
    return q;
}

char *str_ndup(const char *s, size_t n) {
    char *copy = mem_alloc(n + 1, 1);
    if (n) memcpy(copy, s, n);
    return copy;
}

char *str_dup(const char *s) {
    return s ? str_ndup(s, strlen(s)) : NULL;
}

char *str_fmt(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) n = 0;
    char *s = mem_alloc((size_t)n + 1, 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

void str_set(char **dst, const char *src) {
    char *copy = str_dup(src);
    free(*dst);
    *dst = copy;
}

bool str_eq(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}
bool str_ieq(const char *a, const char *b) {
    return a == b || (a && b && strcasecmp(a, b) == 0);
}
bool str_empty(const char *s) {
    return !s || !*s;
}
bool str_starts(const char *s, const char *prefix) {
    return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix) {
    size_t n = s ? strlen(s) : 0, m = strlen(suffix);
    return s && n >= m && memcmp(s + n - m, suffix, m) == 0;
}

bool str_iends(const char *s, const char *suffix) {
    size_t n = s ? strlen(s) : 0, m = strlen(suffix);
    return s && n >= m && strcasecmp(s + n - m, suffix) == 0;
}

bool str_icontains(const char *s, const char *part) {
    size_t m = strlen(part);
    for (; s && *s; s++)
        if (strncasecmp(s, part, m) == 0) return true;
    return m == 0;
}

bool str_copy(char *dst, size_t cap, const char *src) {
    size_t n = src ? strlen(src) : 0;
    size_t take = n < cap ? n : cap - 1;
    if (take) memcpy(dst, src, take);
    dst[take] = 0;
    return take == n;
}

bool str_to_i64(const char *s, int64_t *out) {
    if (str_empty(s) || isspace((unsigned char)*s)) return false;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || *end) return false;
    *out = v;
    return true;
}

bool str_to_u64(const char *s, uint64_t *out) {
    if (str_empty(s) || !isdigit((unsigned char)*s)) return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || *end) return false;
    *out = v;
    return true;
}

bool str_to_f64(const char *s, double *out) {
    if (str_empty(s) || isspace((unsigned char)*s)) return false;
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    if (errno == ERANGE || *end) return false;
    *out = v;
    return true;
}

bool str_to_size(const char *s, int *width, int *height) {
    int w, h, end = 0;
    bool ok = s && isdigit((unsigned char)*s) && sscanf(s, "%5d%*1[xX*]%n", &w, &end) == 1 && end;
    const char *rest = ok ? s + end : "";
    end = 0;
    ok = isdigit((unsigned char)*rest) && sscanf(rest, "%5d%n", &h, &end) == 1 && !rest[end];
    if (!ok) return false;
    *width = w;
    *height = h;
    return true;
}

/* Levenshtein distance with one row; names are short. */
static size_t distance(const char *a, const char *b) {
    size_t row[65];
    size_t n = strlen(b);
    if (n > 64 || strlen(a) > 64) return SIZE_MAX;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j];
            size_t best = diag + (*a != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diag = up;
        }
    }
    return row[n];
}

const char *str_nearest(const char *s, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t limit = strlen(s) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(s, names[i]);
        if (d <= limit) {
            best = names[i];
            limit = d ? d - 1 : 0;
            if (d == 0) break;
        }
    }
    return best;
}

/* Length of the UTF-8 character at s; 0 when malformed; more than n when it is cut off after a valid start. */
static size_t utf8_char(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return 1;
    size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    for (size_t i = 1; i < len && i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (n > 1) {
        if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
        if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
    }
    return len;
}

bool str_is_utf8(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        if (!len || len > n - i) return false;
        i += len;
    }
    return true;
}

size_t str_utf8_complete(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        if (len > n - i) break; /* cut off: more bytes may come */
        i += len ? len : 1;
    }
    return i;
}

uint64_t str_hash(const void *data, size_t n, uint64_t seed) {
    const unsigned char *p = data;
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
