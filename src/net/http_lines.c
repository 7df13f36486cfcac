/* http_lines.c - see http_lines.h. */
#include "net/http_lines.h"

#include <string.h>

void http_lines_init(http_lines *l, size_t max_line, bool (*on_line)(void *ctx, const char *line, size_t len),
                     void *ctx) {
    *l = (http_lines){.on_line = on_line, .ctx = ctx};
    buf_init(&l->rest, max_line);
}

void http_lines_free(http_lines *l) {
    buf_free(&l->rest);
}

static bool deliver(http_lines *l, err *e) {
    size_t len = l->rest.len;
    if (len && l->rest.data[len - 1] == '\r') l->rest.data[--len] = 0;
    bool ok = len == 0 || l->on_line(l->ctx, l->rest.data, len);
    buf_clear(&l->rest);
    return ok || err_set(e, ERR_CANCELLED, "stopped reading lines");
}

static bool add(http_lines *l, const char *data, size_t len, err *e) {
    if (buf_append(&l->rest, data, len)) return true;
    return err_set(e, ERR_TOO_LARGE, "a line is longer than %zu bytes", l->rest.max);
}

bool http_lines_feed(http_lines *l, const char *data, size_t len, err *e) {
    for (const char *end; len && (end = memchr(data, '\n', len)) != NULL;) {
        size_t n = (size_t)(end - data);
        if (!add(l, data, n, e) || !deliver(l, e)) return false;
        data += n + 1;
        len -= n + 1;
    }
    return add(l, data, len, e);
}

bool http_lines_end(http_lines *l, err *e) {
    return deliver(l, e);
}
