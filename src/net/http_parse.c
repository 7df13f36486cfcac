/* http_parse.c - see http_parse.h.
 *
 * The raw bytes of a head are scanned before llhttp sees them, for what it lets pass: folded lines, and the size on
 * the wire. Both agree on where a head ends because only CRLF ends a line. */
#include "net/http_parse.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 128 };

typedef enum scan_state { SCAN_START, SCAN_LINE, SCAN_CR, SCAN_LINE_START, SCAN_LAST_CR, SCAN_DONE } scan_state;

bool http_parse_refuse(http_parser *p, int status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char text[200];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->status = status;
    return err_set(&p->why, status == 413 || status == 431 ? ERR_TOO_LARGE : ERR_FORMAT, "%s", text);
}

static http_parser *of(llhttp_t *ll) {
    return ll->data;
}

/* ---- collecting the head ---- */

static bool count_wire(http_parser *p, size_t n) {
    if (n > p->max_head - p->wire)
        return http_parse_refuse(p, 431, "the header is longer than %u bytes", (unsigned)p->max_head);
    p->wire += (uint32_t)n;
    return true;
}

/* Text behind the head (trailers, chunk extensions) is dropped, but counted. */
static int collect(llhttp_t *ll, const char *at, size_t len) {
    http_parser *p = of(ll);
    if (p->head_done) return count_wire(p, len) ? 0 : HPE_USER;
    return buf_append(&p->head, at, len) || http_parse_refuse(p, 431, "the header is too long") ? 0 : HPE_USER;
}

static int on_text_end(llhttp_t *ll) {
    http_parser *p = of(ll);
    return p->head_done || buf_putc(&p->head, 0) ? 0 : HPE_USER;
}

static bool add_field(http_parser *p) {
    if (p->field_count == FIELDS_MAX) return http_parse_refuse(p, 431, "more than %d header lines", FIELDS_MAX);
    if (p->field_count == p->field_cap) {
        p->field_cap = (uint16_t)(p->field_cap ? p->field_cap * 2 : 8);
        p->fields = mem_resize(p->fields, p->field_cap * sizeof *p->fields);
    }
    p->fields[p->field_count++] = (http_field_at){0};
    return true;
}

/* A name begins where the text before it ended; llhttp gives a name in one or more pieces, then its end. */
static int on_name_end(llhttp_t *ll) {
    http_parser *p = of(ll);
    if (p->head_done) return 0;
    uint32_t name = p->field_count ? p->fields[p->field_count - 1].end : p->target_end;
    if (!add_field(p) || !buf_putc(&p->head, 0)) return HPE_USER;
    p->fields[p->field_count - 1].name = name;
    p->fields[p->field_count - 1].value = (uint32_t)p->head.len;
    return 0;
}

static int on_value_end(llhttp_t *ll) {
    http_parser *p = of(ll);
    if (p->head_done) return 0;
    http_field_at *f = &p->fields[p->field_count - 1];
    while (p->head.len > f->value && strchr(" \t", p->head.data[p->head.len - 1])) p->head.len--;
    if (!buf_putc(&p->head, 0)) return HPE_USER;
    f->end = (uint32_t)p->head.len;
    return 0;
}

static int on_target_end(llhttp_t *ll) {
    http_parser *p = of(ll);
    if (on_text_end(ll) != 0) return HPE_USER;
    p->target_end = (uint32_t)p->head.len;
    return 0;
}

/* ---- judging the head ---- */

static size_t count_fields(const http_parser *p, const char *name) {
    size_t n = 0;
    for (uint16_t i = 0; i < p->field_count; i++) n += str_ieq(p->head.data + p->fields[i].name, name);
    return n;
}

static bool check_version(http_parser *p) {
    int major = p->ll.http_major, minor = p->ll.http_minor;
    if (major == 1 && minor <= 1) return true;
    if (major == 0) return http_parse_refuse(p, 400, "malformed request line"); /* "GET /" alone reads as 0.9 */
    return http_parse_refuse(p, 505, "HTTP/%d.%d is not spoken here", major, minor);
}

/* Two different readings of one message are how requests get smuggled: nothing that decides framing or trust may
 * stand there twice. */
static bool check_request(http_parser *p) {
    static const char *const once[] = {"Host",          "Content-Length", "Transfer-Encoding", "Content-Type", "Origin",
                                       "Authorization", "Expect"};
    for (size_t i = 0; i < sizeof once / sizeof once[0]; i++)
        if (count_fields(p, once[i]) > 1) return http_parse_refuse(p, 400, "more than one %s header", once[i]);
    if (!http_parse_is_1_0(p) && !http_parse_header(p, "Host"))
        return http_parse_refuse(p, 400, "the Host header is missing");
    const char *coding = http_parse_header(p, "Transfer-Encoding");
    if (!coding) return true;
    if (http_parse_is_1_0(p)) return http_parse_refuse(p, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (http_parse_header(p, "Content-Length"))
        return http_parse_refuse(p, 400, "both Content-Length and Transfer-Encoding");
    if (!str_ieq(coding, "chunked")) return http_parse_refuse(p, 501, "only the transfer coding 'chunked' is known");
    return true;
}

static int on_headers_complete(llhttp_t *ll) {
    http_parser *p = of(ll);
    if (!check_version(p)) return -1;
    if (llhttp_get_type(ll) == HTTP_REQUEST && !check_request(p)) return -1;
    ll->upgrade = 0; /* an Upgrade is an offer; we do not take it and go on in HTTP/1.1 */
    if (p->no_body) ll->flags |= F_SKIPBODY;
    p->keep_alive = llhttp_should_keep_alive(ll) != 0;
    p->head_done = true;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t len) {
    http_parser *p = of(ll);
    if (!len || p->on_body(p->ctx, at, len)) return 0;
    if (!p->status) http_parse_refuse(p, 400, "not wanted");
    return HPE_USER;
}

static int on_message_complete(llhttp_t *ll) {
    of(ll)->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_url = collect,
    .on_url_complete = on_target_end,
    .on_header_field = collect,
    .on_header_field_complete = on_name_end,
    .on_header_value = collect,
    .on_header_value_complete = on_value_end,
    .on_headers_complete = on_headers_complete,
    .on_chunk_extension_name = collect,
    .on_chunk_extension_value = collect,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void http_parse_init(http_parser *p, http_kind kind, size_t max_head, http_parse_body_fn *body, void *ctx) {
    *p = (http_parser){.on_body = body, .ctx = ctx, .max_head = (uint32_t)max_head};
    buf_init(&p->head, max_head * 2); /* the NULs too */
    llhttp_init(&p->ll, kind == HTTP_KIND_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &callbacks);
    p->ll.data = p;
}

void http_parse_free(http_parser *p) {
    buf_free(&p->head);
    free(p->fields);
    p->fields = NULL;
}

void http_parse_next(http_parser *p) {
    llhttp_type_t type = llhttp_get_type(&p->ll);
    http_parse_free(p);
    http_parse_init(p, type == HTTP_REQUEST ? HTTP_KIND_REQUEST : HTTP_KIND_RESPONSE, p->max_head, p->on_body, p->ctx);
}

/* ---- feeding ---- */

static scan_state scan_byte(http_parser *p, scan_state at, char c) {
    switch (at) {
    case SCAN_START: /* empty lines before a message are skipped, RFC 9112, 2.2 */
        if (c == '\r' || c == '\n') return SCAN_START;
        p->first = c;
        return SCAN_LINE;
    case SCAN_LINE:
        if (c == '\r') return SCAN_CR;
        if (c == '\n') http_parse_refuse(p, 400, "a line ends in a bare LF");
        if (c == 0) http_parse_refuse(p, 400, "NUL in the header");
        return SCAN_LINE;
    case SCAN_CR:
        if (c != '\n') http_parse_refuse(p, 400, "a bare CR in the header");
        return SCAN_LINE_START;
    case SCAN_LINE_START:
        if (c == '\r') return SCAN_LAST_CR;
        if (c == ' ' || c == '\t') http_parse_refuse(p, 400, "a folded header line");
        if (c == '\n') http_parse_refuse(p, 400, "a line ends in a bare LF");
        return SCAN_LINE;
    case SCAN_LAST_CR:
        if (c != '\n') http_parse_refuse(p, 400, "a bare CR in the header");
        return SCAN_DONE;
    case SCAN_DONE:
        break;
    }
    return SCAN_DONE;
}

static bool scan_head(http_parser *p, const char *data, size_t len) {
    size_t i = 0;
    scan_state at = (scan_state)p->scan;
    for (; i < len && at != SCAN_DONE && !p->status; i++) at = scan_byte(p, at, data[i]);
    p->scan = (uint8_t)at;
    return !p->status && count_wire(p, i);
}

/* llhttp has one code for "unknown" and "malformed"; only its reason tells them apart. */
static bool reason_is(const http_parser *p, const char *start) {
    const char *reason = llhttp_get_error_reason(&p->ll);
    return reason && str_starts(reason, start);
}

static http_parse_result refused_by_llhttp(http_parser *p, llhttp_errno_t why) {
    if (p->status) return HTTP_PARSE_BAD; /* by one of our callbacks, which said why */
    const char *reason = llhttp_get_error_reason(&p->ll);
    bool is_word = p->first >= 'A' && p->first <= 'Z'; /* not the hello of a TLS client */
    if (why == HPE_PAUSED_H2_UPGRADE || (why == HPE_INVALID_VERSION && reason_is(p, "Invalid HTTP version")))
        http_parse_refuse(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    else if (why == HPE_INVALID_METHOD && is_word && reason_is(p, "Invalid method"))
        http_parse_refuse(p, 501, "unknown method");
    else
        http_parse_refuse(p, 400, "malformed HTTP: %s", reason ? reason : llhttp_errno_name(why));
    return HTTP_PARSE_BAD;
}

http_parse_result http_parse_feed(http_parser *p, const char *data, size_t len, size_t *used) {
    *used = 0;
    if (p->status) return HTTP_PARSE_BAD;
    if (p->complete) return HTTP_PARSE_DONE;
    if (!p->head_done && !scan_head(p, data, len)) return HTTP_PARSE_BAD;
    if (llhttp_get_errno(&p->ll) == HPE_PAUSED) llhttp_resume(&p->ll);
    bool had_head = p->head_done;
    llhttp_errno_t why = llhttp_execute(&p->ll, data, len);
    if (why == HPE_OK) {
        *used = len;
        return HTTP_PARSE_MORE;
    }
    if (why != HPE_PAUSED) return refused_by_llhttp(p, why);
    *used = (size_t)(llhttp_get_error_pos(&p->ll) - data);
    if (!had_head && p->head_done) return HTTP_PARSE_HEAD;
    return HTTP_PARSE_DONE;
}

http_parse_result http_parse_eof(http_parser *p) {
    if (p->status) return HTTP_PARSE_BAD;
    if (p->complete) return HTTP_PARSE_DONE;
    if (llhttp_get_errno(&p->ll) == HPE_PAUSED) llhttp_resume(&p->ll);
    llhttp_finish(&p->ll);
    if (p->complete) return HTTP_PARSE_DONE;
    http_parse_refuse(p, 400, "the connection was closed in the middle of a message");
    return HTTP_PARSE_BAD;
}

/* ---- reading the head ---- */

const char *http_parse_method(const http_parser *p) {
    return llhttp_method_name((llhttp_method_t)p->ll.method);
}

const char *http_parse_target(const http_parser *p) {
    return buf_str(&p->head);
}

const char *http_parse_header(const http_parser *p, const char *name) {
    for (uint16_t i = 0; i < p->field_count; i++)
        if (str_ieq(p->head.data + p->fields[i].name, name)) return p->head.data + p->fields[i].value;
    return NULL;
}

int http_parse_status(const http_parser *p) {
    return p->ll.status_code;
}

bool http_parse_is_1_0(const http_parser *p) {
    return p->ll.http_minor == 0;
}

bool http_parse_has_body(const http_parser *p) {
    return (p->ll.flags & F_CHUNKED) || p->ll.content_length > 0;
}

uint64_t http_parse_length(const http_parser *p) {
    return (p->ll.flags & F_CHUNKED) ? 0 : p->ll.content_length;
}

bool http_is_field_name(const char *s) {
    if (str_empty(s)) return false;
    for (; *s; s++)
        if (*s <= ' ' || *s > '~' || strchr("()<>@,;:\\\"/[]?={}", *s)) return false;
    return true;
}

bool http_is_field_value(const char *s) {
    if (!s) return false;
    for (; *s; s++)
        if (*s == 0x7F || ((unsigned char)*s < 0x20 && *s != '\t')) return false;
    return true;
}

bool http_has_token(const char *value, const char *token) {
    size_t want = strlen(token);
    while (value && *value) {
        value += strspn(value, " \t,");
        size_t n = strcspn(value, ",");
        size_t word = n;
        while (word && strchr(" \t", value[word - 1])) word--;
        if (word == want) {
            char *w = str_ndup(value, word);
            bool same = str_ieq(w, token);
            free(w);
            if (same) return true;
        }
        value += n;
    }
    return false;
}
