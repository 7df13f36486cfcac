/* http_req.c - see http_req.h: what a handler asks of a request, and how an answer goes on the wire. */
#include "net/http_conn.h"
#include "base/clock.h"
#include "base/str.h"
#include "json/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA_MAX = 16 * 1024 };

/* ---- the request ---- */

http_req *req_new(http_conn *c) {
    http_req *req = mem_alloc(1, sizeof *req);
    req->conn = c;
    buf_init(&req->extra, EXTRA_MAX);
    c->req = req;
    return req;
}

static void free_pairs(http_pair *p) {
    while (p) {
        http_pair *next = p->next;
        free(p->value);
        free(p);
        p = next;
    }
}

void req_free(http_req *req) {
    http_uri_free(&req->uri);
    buf_free(&req->body);
    buf_free(&req->extra);
    free_pairs(req->params);
    free_pairs(req->queries);
    free(req->peer);
    free(req);
}

bool req_read_head(http_req *req, err *e) {
    const http_parser *p = &req->conn->parser;
    req->is_head = str_eq(http_parse_method(p), "HEAD");
    req->is_1_0 = http_parse_is_1_0(p);
    const char *target = http_parse_target(p);
    if (!http_uri_parse(&req->uri, target, strlen(target), e)) return false;
    if (str_eq(req->uri.path, "*") && !str_eq(http_parse_method(p), "OPTIONS"))
        return err_set(e, ERR_INVALID, "the target '*' is for OPTIONS only");
    if (req->uri.authority && !str_ieq(req->uri.authority, http_parse_header(p, "Host")))
        return err_set(e, ERR_INVALID, "target and Host header name different hosts");
    return true;
}

const char *http_req_method(const http_req *req) {
    return http_parse_method(&req->conn->parser);
}

bool http_req_is_head(const http_req *req) {
    return req->is_head;
}

const char *http_req_path(const http_req *req) {
    return req->uri.path ? req->uri.path : "";
}

const char *http_req_query_string(const http_req *req) {
    return req->uri.query ? req->uri.query : "";
}

static http_pair *add_pair(http_pair **list, const char *name, char *value) {
    size_t n = strlen(name) + 1;
    http_pair *p = mem_alloc(1, sizeof *p + n);
    memcpy(p->name, name, n);
    p->value = value;
    p->next = *list;
    *list = p;
    return p;
}

static http_pair *find_pair(http_pair *list, const char *name) {
    while (list && !str_eq(list->name, name)) list = list->next;
    return list;
}

const char *http_req_query(http_req *req, const char *name) {
    http_pair *p = find_pair(req->queries, name);
    if (!p) p = add_pair(&req->queries, name, http_uri_query(http_req_query_string(req), name));
    return p->value;
}

const char *http_req_header(const http_req *req, const char *name) {
    return http_parse_header(&req->conn->parser, name);
}

const char *http_req_param(const http_req *req, const char *name) {
    const http_pair *p = find_pair(req->params, name);
    return p ? p->value : NULL;
}

void http_req_set_param(http_req *req, const char *name, const char *value, size_t len) {
    http_pair *p = find_pair(req->params, name);
    if (!p) p = add_pair(&req->params, name, NULL);
    free(p->value);
    p->value = str_ndup(value, len);
}

void http_req_set_route(http_req *req, const void *route) {
    req->route = route;
}

const void *http_req_route(const http_req *req) {
    return req->route;
}

const char *http_req_body(const http_req *req, size_t *len) {
    if (len) *len = req->body.len;
    return buf_str(&req->body);
}

void http_req_drop_body(http_req *req) {
    buf_free(&req->body);
}

char *http_req_take_body(http_req *req, size_t *len) {
    return buf_take(&req->body, len);
}

const char *http_req_peer(const http_req *req) {
    if (req->peer) return req->peer;
    struct sockaddr_storage addr;
    int len = sizeof addr;
    char text[64] = "";
    if (uv_tcp_getpeername(&req->conn->tcp, (struct sockaddr *)&addr, &len) == 0)
        uv_ip_name((struct sockaddr *)&addr, text, sizeof text);
    ((http_req *)(uintptr_t)req)->peer = str_dup(text); /* a cache: the address does not change */
    return req->peer;
}

uv_loop_t *http_req_loop(const http_req *req) {
    return req->conn->loop;
}

void http_req_limit_body(http_req *req, size_t max_body) {
    req->max_body = max_body;
}

void http_req_on_drain(http_req *req, http_handler *fn, void *ctx) {
    req->on_drain = fn;
    req->drain_ctx = ctx;
}

void http_req_on_close(http_req *req, http_handler *fn, void *ctx) {
    req->on_close = fn;
    req->close_ctx = ctx;
}

void req_notify_close(http_req *req) {
    if (!req->on_close) return;
    http_conn *c = req->conn;
    req->notifying = true;
    req->on_close(req->close_ctx, req);
    c->req = NULL;
    req_free(req);
}

/* ---- the answer ---- */

const char *http_status_text(int status) {
    static const struct {
        int status;
        const char *text;
    } table[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].status == status) return table[i].text;
    return "Unknown";
}

bool http_header_add(http_req *req, const char *name, const char *value) {
    if (req->framing != REPLY_NOT_BEGUN || !http_is_field_name(name) || !http_is_field_value(value)) return false;
    return buf_printf(&req->extra, "%s: %s\r\n", name, value);
}

/* Ends the request: nothing may touch it afterwards. */
static void finish(http_req *req, bool keep_alive) {
    if (req->notifying) return;
    http_conn *c = req->conn;
    keep_alive = keep_alive && req->complete;
    c->req = NULL;
    req_free(req);
    if (c->closed)
        conn_unref(c);
    else if (!c->closing)
        conn_answered(c, keep_alive);
}

static bool stays_open(const http_req *req) {
    const http_conn *c = req->conn;
    return req->complete && c->parser.keep_alive && !c->last && req->framing != REPLY_UNTIL_CLOSE;
}

static void write_framing(http_req *req, buf *head, int status, uint64_t length) {
    if (status == 204 || status == 304) return;
    if (req->framing == REPLY_LENGTH)
        buf_printf(head, "Content-Length: %llu\r\n", (unsigned long long)length);
    else if (req->framing == REPLY_CHUNKED)
        buf_puts(head, "Transfer-Encoding: chunked\r\n");
}

static void write_head(http_req *req, buf *head, int status, const char *content_type, uint64_t length) {
    char date[30];
    clock_format_http(clock_wall_ms(), date);
    buf_printf(head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, http_status_text(status), date);
    if (content_type && http_is_field_value(content_type)) buf_printf(head, "Content-Type: %s\r\n", content_type);
    write_framing(req, head, status, length);
    if (!stays_open(req))
        buf_puts(head, "Connection: close\r\n");
    else if (req->is_1_0)
        buf_puts(head, "Connection: keep-alive\r\n");
    buf_puts(head, "X-Content-Type-Options: nosniff\r\n");
    buf_append(head, buf_str(&req->extra), req->extra.len);
    buf_puts(head, "\r\n");
    buf_free(&req->extra);
}

/* Sends the head, and `data` with it in one system call. */
static void begin(http_req *req, reply_framing framing, int status, const char *content_type, uint64_t length,
                  const void *data, size_t len) {
    if (req->framing != REPLY_NOT_BEGUN || req->notifying) return;
    req->framing = framing;
    req->no_body = req->is_head || status == 204 || status == 304;
    req->remaining = length - len;
    if (req->conn->closing) return;
    buf head;
    buf_init(&head, EXTRA_MAX + 1024);
    write_head(req, &head, status, content_type, length);
    uv_buf_t bufs[2] = {uv_buf_init(head.data, (unsigned)head.len),
                        uv_buf_init((char *)(uintptr_t)data, (unsigned)(req->no_body ? 0 : len))};
    conn_write(req->conn, bufs, 2);
    buf_free(&head);
}

void http_reply(http_req *req, int status, const char *content_type, const void *data, size_t len) {
    if (req->framing != REPLY_NOT_BEGUN) { /* too late for another answer: the client must not take it for whole */
        http_reply_abort(req);
        return;
    }
    begin(req, REPLY_LENGTH, status, content_type, len, data, len);
    finish(req, stays_open(req));
}

void http_reply_begin(http_req *req, int status, const char *content_type) {
    begin(req, req->is_1_0 ? REPLY_UNTIL_CLOSE : REPLY_CHUNKED, status, content_type, 0, NULL, 0);
}

void http_reply_begin_length(http_req *req, int status, const char *content_type, uint64_t length) {
    begin(req, REPLY_LENGTH, status, content_type, length, NULL, 0);
}

static void write_chunk(http_req *req, const void *data, size_t len) {
    char size[24];
    int n = snprintf(size, sizeof size, "%zx\r\n", len);
    uv_buf_t bufs[3] = {uv_buf_init(size, (unsigned)n), uv_buf_init((char *)(uintptr_t)data, (unsigned)len),
                        uv_buf_init("\r\n", 2)};
    conn_write(req->conn, bufs, 3);
}

bool http_reply_write(http_req *req, const void *data, size_t len) {
    if (req->framing == REPLY_LENGTH) {
        if (len > req->remaining) len = (size_t)req->remaining;
        req->remaining -= len;
    }
    if (!len || req->no_body || req->conn->closing || req->framing == REPLY_NOT_BEGUN) return true;
    if (req->framing == REPLY_CHUNKED) {
        write_chunk(req, data, len);
    } else {
        uv_buf_t plain = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
        conn_write(req->conn, &plain, 1);
    }
    return http_reply_queued(req) <= HTTP_HIGH_WATER;
}

void http_reply_end(http_req *req) {
    bool cut_short = req->framing == REPLY_NOT_BEGUN || (req->framing == REPLY_LENGTH && req->remaining);
    if (cut_short && !req->no_body) {
        http_reply_abort(req);
        return;
    }
    if (req->framing == REPLY_CHUNKED && !req->no_body && !req->conn->closing) {
        uv_buf_t last = uv_buf_init("0\r\n\r\n", 5);
        conn_write(req->conn, &last, 1);
    }
    finish(req, stays_open(req));
}

void http_req_cut(http_req *req) {
    if (!req->notifying) conn_close(req->conn);
}

void http_reply_abort(http_req *req) {
    http_req_cut(req);
    finish(req, false);
}

size_t http_reply_queued(const http_req *req) {
    return req->conn->closing ? 0 : uv_stream_get_write_queue_size((const uv_stream_t *)&req->conn->tcp);
}

bool http_reply_begun(const http_req *req) {
    return req->framing != REPLY_NOT_BEGUN;
}

/* ---- errors ---- */

static const char *error_type(int status) {
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* "Content Too Large" -> "content_too_large". */
static void default_code(int status, char out[64]) {
    str_copy(out, 64, http_status_text(status));
    for (char *c = out; *c; c++) *c = *c == ' ' || *c == '-' ? '_' : (char)(*c >= 'A' && *c <= 'Z' ? *c | 0x20 : *c);
}

static void reply_envelope(http_req *req, int status, const char *code, const char *param, const char *message) {
    char by_status[64];
    default_code(status, by_status);
    buf body;
    buf_init(&body, 1024 * 1024); /* far more than needed: a cut one would not be JSON */
    json_write_error(&body, error_type(status), code ? code : by_status, param, message);
    http_reply(req, status, "application/json", body.data, body.len);
    buf_free(&body);
}

void http_reply_error(http_req *req, int status, const char *code, const char *param, const char *fmt, ...) {
    buf message;
    buf_init(&message, 2000);
    va_list ap;
    va_start(ap, fmt);
    if (!buf_vprintf(&message, fmt, ap)) buf_puts(&message, http_status_text(status));
    va_end(ap);
    reply_envelope(req, status, code, param, buf_str(&message));
    buf_free(&message);
}

void http_reply_err(http_req *req, const err *e) {
    reply_envelope(req, http_status_of(e->code), err_name(e->code), NULL, e->msg);
}

int http_status_of(int code) {
    switch ((err_code)code) {
    case ERR_NONE:
        return 200;
    case ERR_INVALID:
    case ERR_FORMAT:
    case ERR_UNSUPPORTED:
        return 400;
    case ERR_DENIED:
        return 403;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_CONFLICT:
        return 409;
    case ERR_TOO_LARGE:
        return 413;
    case ERR_BUSY:
    case ERR_CRASHED:
    case ERR_MEMORY:
        return 503;
    case ERR_TIMEOUT:
        return 504;
    case ERR_CANCELLED:
    case ERR_DEVICE:
    case ERR_IO:
    case ERR_INTERNAL:
        return 500;
    }
    return 500;
}
