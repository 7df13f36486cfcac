/* text_out.c - see text_out.h. */
#include "llm/text_out.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { HELD_MAX = 1 << 20 }; /* far beyond the longest stop string and piece */

void text_out_init(text_out *t, const char *const *stops, size_t count) {
    *t = (text_out){.stops = mem_alloc(count, sizeof *t->stops)};
    buf_init(&t->held, HELD_MAX);
    for (size_t i = 0; i < count; i++)
        if (!str_empty(stops[i])) t->stops[t->stop_count++] = str_dup(stops[i]);
}

void text_out_free(text_out *t) {
    for (size_t i = 0; i < t->stop_count; i++) free(t->stops[i]);
    free(t->stops);
    buf_free(&t->held);
    *t = (text_out){0};
}

/* Where the first stop string begins, or the length when there is none. */
static size_t find_stop(const text_out *t) {
    const char *text = buf_str(&t->held);
    size_t first = t->held.len;
    for (size_t i = 0; i < t->stop_count; i++) {
        size_t n = strlen(t->stops[i]);
        for (size_t at = 0; at < first && at + n <= t->held.len; at++) {
            if (memcmp(text + at, t->stops[i], n) == 0) first = at;
        }
    }
    return first;
}

/* How many bytes at the end might be the beginning of a stop string. */
static size_t stop_begun(const text_out *t) {
    const char *text = buf_str(&t->held);
    size_t longest = 0;
    for (size_t i = 0; i < t->stop_count; i++) {
        size_t n = strlen(t->stops[i]) - 1;
        if (n > t->held.len) n = t->held.len;
        while (n > longest && memcmp(text + t->held.len - n, t->stops[i], n) != 0) n--;
        if (n > longest) longest = n;
    }
    return longest;
}

static void show(text_out *t, size_t len, buf *shown) {
    const char *s = buf_str(&t->held);
    for (size_t i = 0; i < len;) {
        size_t n = 1;
        while (n < 4 && i + n < len && ((unsigned char)s[i + n] & 0xC0) == 0x80) n++;
        while (n > 1 && !str_is_utf8(s + i, n)) n--;
        if (s[i] && str_is_utf8(s + i, n)) /* a NUL would end the text for many a reader */
            buf_append(shown, s + i, n);
        else
            buf_puts(shown, "\xEF\xBF\xBD");
        i += n;
    }
    buf_consume(&t->held, len);
}

bool text_out_push(text_out *t, const char *piece, size_t len, buf *shown) {
    buf_append(&t->held, piece, len);
    size_t stop = find_stop(t);
    if (stop < t->held.len) {
        show(t, stop, shown);
        buf_clear(&t->held);
        return true;
    }
    size_t sure = t->held.len - stop_begun(t);
    show(t, str_utf8_complete(buf_str(&t->held), sure), shown);
    return false;
}

void text_out_finish(text_out *t, buf *shown) {
    show(t, str_utf8_complete(buf_str(&t->held), t->held.len), shown);
    buf_clear(&t->held);
}
