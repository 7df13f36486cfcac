/* HTTP requests and answers: the first byte says how the rest is cut. However it is cut, the same must be read, and
 * what comes out of the target must be safe to use as a path. */
#include "net/http_parse.h"
#include "net/http_uri.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) abort();                                                                                     \
    } while (0)

enum { HEAD_MAX = 8192 };

static bool add_body(void *ctx, const char *data, size_t len) {
    CHECK(len > 0);
    return buf_append(ctx, data, len);
}

static void check_target(const char *target) {
    http_uri u;
    if (!http_uri_parse(&u, target, strlen(target), NULL)) return;
    CHECK(str_eq(u.path, "*") || u.path[0] == '/');
    CHECK(str_is_utf8(u.path, strlen(u.path)));
    CHECK(!strstr(u.path, "/../") && !str_ends(u.path, "/..") && !strpbrk(u.path, "\r\n"));
    free(http_uri_query(u.query, "a"));
    http_uri_free(&u);
}

static void read_head(http_parser *p, http_kind kind, buf *seen) {
    const char *host = http_parse_header(p, "Host");
    http_has_token(http_parse_header(p, "Connection"), "close");
    buf_printf(seen, "<%s|%s|%d|%d>", http_parse_target(p), host ? host : "-", p->keep_alive, p->field_count);
    if (kind == HTTP_KIND_REQUEST) {
        check_target(http_parse_target(p));
        buf_puts(seen, http_parse_method(p));
    } else {
        buf_printf(seen, "%d", http_parse_status(p));
    }
}

/* Everything that was read, as text. */
static void read_all(http_kind kind, const char *data, size_t len, size_t step, buf *seen) {
    http_parser p;
    http_parse_init(&p, kind, HEAD_MAX, add_body, seen);
    http_parse_result r = HTTP_PARSE_MORE;
    for (size_t at = 0, end = 0; r != HTTP_PARSE_BAD && (at < len || r == HTTP_PARSE_HEAD);) {
        if (end <= at) end = at + step < len ? at + step : len;
        size_t used;
        r = http_parse_feed(&p, data + at, end - at, &used);
        CHECK(used <= end - at && (used || r != HTTP_PARSE_MORE || at == end));
        at += used;
        if (r == HTTP_PARSE_HEAD) read_head(&p, kind, seen);
        if (r != HTTP_PARSE_DONE) continue;
        buf_puts(seen, "|done|");
        http_parse_next(&p);
    }
    if (r == HTTP_PARSE_BAD) CHECK(p.status >= 400 && p.status <= 505 && p.why.msg[0]);
    buf_puts(seen, p.status ? "|refused|" : "|open|"); /* which of several faults is found first depends on the cut */
    http_parse_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    http_kind kind = data[0] & 1 ? HTTP_KIND_RESPONSE : HTTP_KIND_REQUEST;
    size_t step = 1 + (data[0] >> 1) % 40;
    const char *text = (const char *)data + 1;
    buf whole, cut;
    buf_init(&whole, 1 << 22);
    buf_init(&cut, 1 << 22);
    read_all(kind, text, size - 1, size, &whole);
    read_all(kind, text, size - 1, step, &cut);
    CHECK(str_eq(buf_str(&whole), buf_str(&cut)));
    buf_free(&whole);
    buf_free(&cut);
    return 0;
}
