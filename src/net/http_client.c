/* http_client.c - see http_client.h.
 *
 * A link is a connection: connecting, carrying one call, or idle in the pool. A call keeps the bytes of its request,
 * so that it can move to a fresh link when an idle one turns out dead. Failures found inside a call to this module are
 * reported from the loop, by the link's timer. */
#include "net/http_client.h"
#include "base/str.h"
#include "net/http_parse.h"

#include <stdlib.h>
#include <string.h>

enum { READ_SIZE = 64 * 1024, HEAD_MAX = 64 * 1024, IDLE_MAX = 8, CONNECT_MS = 2000 };
enum { IDLE_MS = 20000 }; /* well before the peer would close an idle connection, so that no call meets that moment */

typedef enum link_state { LINK_CONNECTING, LINK_BUSY, LINK_IDLE } link_state;

typedef struct http_link {
    http_client *client;
    struct http_link *prev, *next;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    http_parser parser;
    http_call *call; /* NULL when idle, or when the call was aborted */
    link_state state;
    uint8_t open_handles;
    bool closing, used_before, reading, writing, heard; /* heard: a byte of the answer came */
} http_link;

/* http_client_fetch(): an answer being collected. */
typedef struct fetch {
    buf body;
    http_fetch_fn *fn;
    void *ctx;
    http_call *call;
} fetch;

struct http_call {
    http_client *client;
    http_call *prev, *next;
    http_link *link;
    http_call_opts opts; /* callbacks and timeouts; the borrowed texts are NULL */
    char *wire;          /* the request's bytes */
    size_t wire_len;
    int status;
    bool idempotent, is_head, told, paused, done;
    fetch *fetch; /* owned */
};

struct http_client {
    uv_loop_t *loop;
    struct sockaddr_storage addr;
    char host[80];
    http_link *links;
    http_call *calls;
    int idle;
    bool closing;
    char read_buf[READ_SIZE];
};

static void start_on_link(http_call *call, bool fresh);

/* ---- lifetimes ---- */

static void client_check_free(http_client *c) {
    if (c->closing && !c->links && !c->calls) free(c);
}

static void free_call(http_call *call) {
    http_client *c = call->client;
    if (call->prev)
        call->prev->next = call->next;
    else
        c->calls = call->next;
    if (call->next) call->next->prev = call->prev;
    if (call->fetch) buf_free(&call->fetch->body);
    free(call->fetch);
    free(call->wire);
    free(call);
    client_check_free(c);
}

static void on_handle_closed(uv_handle_t *handle) {
    http_link *l = handle->data;
    if (--l->open_handles) return;
    http_client *c = l->client;
    if (l->prev)
        l->prev->next = l->next;
    else
        c->links = l->next;
    if (l->next) l->next->prev = l->prev;
    http_parse_free(&l->parser);
    free(l);
    client_check_free(c);
}

static void link_close(http_link *l) {
    if (l->closing) return;
    if (l->state == LINK_IDLE) l->client->idle--;
    l->closing = true;
    uv_close((uv_handle_t *)&l->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&l->timer, on_handle_closed);
}

/* The last thing a call does. Its link is gone from it already. */
static void finish_call(http_call *call, const err *e) {
    call->done = true;
    if (call->opts.on_done) call->opts.on_done(call->opts.ctx, e);
    free_call(call);
}

/* The link is broken: the call fails with it, or starts again. */
static void link_fail(http_link *l, const err *e) {
    http_call *call = l->call;
    bool again = call && l->used_before && !l->heard && call->idempotent && e->code == ERR_IO;
    l->call = NULL;
    link_close(l);
    if (!call) return;
    call->link = NULL;
    if (again)
        start_on_link(call, true);
    else
        finish_call(call, e);
}

static void link_fail_uv(http_link *l, const char *what, int status) {
    err e;
    err_set(&e, status == UV_ENOMEM ? ERR_MEMORY : ERR_IO, "%s %s: %s", what, l->client->host, uv_strerror(status));
    link_fail(l, &e);
}

/* ---- timers ---- */

static void on_timeout(uv_timer_t *timer) {
    http_link *l = timer->data;
    err e;
    if (l->state == LINK_IDLE) {
        link_close(l);
        return;
    }
    if (l->state == LINK_CONNECTING)
        err_set(&e, ERR_TIMEOUT, "connect %s: timeout", l->client->host);
    else
        err_set(&e, ERR_TIMEOUT, "%s: no answer for %d ms", l->client->host,
                l->call ? l->call->opts.idle_timeout_ms : 0);
    link_fail(l, &e);
}

static void arm_idle(http_link *l) {
    int ms = l->call ? l->call->opts.idle_timeout_ms : 0;
    if (ms > 0 && !l->call->paused)
        uv_timer_start(&l->timer, on_timeout, (uint64_t)ms, 0);
    else
        uv_timer_stop(&l->timer);
}

/* ---- reading the answer ---- */

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b) {
    (void)suggested;
    http_link *l = handle->data;
    *b = uv_buf_init(l->client->read_buf, READ_SIZE);
}

static void set_reading(http_link *l, bool on) {
    if (l->reading == on || l->closing) return;
    l->reading = on;
    if (on)
        uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&l->tcp);
}

static bool on_body(void *ctx, const char *data, size_t len) {
    http_link *l = ctx;
    if (l->call->status >= 200 && l->call->opts.on_data) l->call->opts.on_data(l->call->opts.ctx, data, len);
    return l->call != NULL; /* aborted by its owner */
}

static void on_head(http_link *l) {
    http_call *call = l->call;
    call->status = http_parse_status(&l->parser);
    if (call->status < 200) return; /* interim: the real answer follows */
    call->told = true;
    if (call->opts.on_headers) call->opts.on_headers(call->opts.ctx, call);
}

/* `clean`: no bytes came behind the answer. */
static void on_complete(http_link *l, bool clean) {
    http_call *call = l->call;
    bool keep = l->parser.keep_alive && clean && !l->writing && l->client->idle < IDLE_MAX;
    http_parse_next(&l->parser);
    if (!call->told) {
        l->parser.no_body = call->is_head;
        return;
    }
    l->call = NULL;
    call->link = NULL;
    if (keep) {
        l->state = LINK_IDLE;
        l->client->idle++;
        set_reading(l, true);
        uv_timer_start(&l->timer, on_timeout, IDLE_MS, 0);
    } else {
        link_close(l);
    }
    finish_call(call, NULL);
}

static void link_bad(http_link *l) {
    if (l->closing) return;
    err e = l->parser.why;
    err_wrap(&e, "answer of %s", l->client->host);
    link_fail(l, &e);
}

static void link_input(http_link *l, const char *data, size_t len) {
    bool again = false;
    while (l->call && !l->closing && (len || again)) {
        size_t used;
        http_parse_result r = http_parse_feed(&l->parser, data, len, &used);
        data += used;
        len -= used;
        again = r == HTTP_PARSE_HEAD;
        if (r == HTTP_PARSE_HEAD)
            on_head(l);
        else if (r == HTTP_PARSE_DONE)
            on_complete(l, len == 0 || l->call->status < 200);
        else if (r == HTTP_PARSE_BAD)
            link_bad(l);
    }
}

static void link_eof(http_link *l, int status) {
    if (l->heard && http_parse_eof(&l->parser) == HTTP_PARSE_DONE && l->call->told)
        on_complete(l, false);
    else
        link_fail_uv(l, "read from", status);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b) {
    http_link *l = stream->data;
    if (l->closing || n == 0) return;
    if (!l->call) {
        link_close(l); /* an idle peer that closes, or speaks without being asked */
    } else if (n < 0) {
        link_eof(l, (int)n);
    } else {
        l->heard = true;
        arm_idle(l);
        link_input(l, b->base, (size_t)n);
    }
}

/* ---- sending the request ---- */

/* The rest of a request; a copy, because its call may be aborted before the socket is closed. */
typedef struct pending_write {
    uv_write_t req;
    char data[];
} pending_write;

static void on_written(uv_write_t *w, int status) {
    http_link *l = w->handle->data;
    free(w);
    l->writing = false;
    /* A failed write is not reported here: the peer may have answered and closed before it read all. Reading tells. */
    (void)status;
}

/* False when not a single byte could be sent. */
static bool send_request(http_link *l) {
    http_call *call = l->call;
    uv_buf_t all = uv_buf_init(call->wire, (unsigned)call->wire_len);
    int n = uv_try_write((uv_stream_t *)&l->tcp, &all, 1);
    if (n < 0 && n != UV_EAGAIN) return false;
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent < call->wire_len) {
        pending_write *w = mem_alloc(1, sizeof *w + call->wire_len - sent);
        memcpy(w->data, call->wire + sent, call->wire_len - sent);
        uv_buf_t rest = uv_buf_init(w->data, (unsigned)(call->wire_len - sent));
        l->writing = true;
        if (uv_write(&w->req, (uv_stream_t *)&l->tcp, &rest, 1, on_written) != 0) {
            free(w);
            return sent > 0;
        }
    }
    if (!call->idempotent) { /* will not be sent again */
        free(call->wire);
        call->wire = NULL;
    }
    return true;
}

static void link_begin(http_link *l) {
    l->state = LINK_BUSY;
    l->heard = false;
    l->parser.no_body = l->call->is_head;
    set_reading(l, !l->call->paused);
    arm_idle(l);
}

static void on_connected(uv_connect_t *connect, int status) {
    http_link *l = connect->handle->data;
    if (l->closing) return;
    if (status < 0) {
        link_fail_uv(l, "connect", status);
        return;
    }
    uv_tcp_nodelay(&l->tcp, 1);
    link_begin(l);
    if (!send_request(l)) link_fail_uv(l, "write to", UV_ECONNRESET);
}

static void on_refused_at_once(uv_timer_t *timer) {
    link_fail_uv(timer->data, "connect", UV_ECONNREFUSED);
}

static http_link *link_open(http_call *call) {
    http_client *c = call->client;
    http_link *l = mem_alloc(1, sizeof *l);
    l->client = c;
    l->call = call;
    uv_tcp_init(c->loop, &l->tcp);
    uv_timer_init(c->loop, &l->timer);
    l->tcp.data = l->timer.data = l;
    l->open_handles = 2;
    http_parse_init(&l->parser, HTTP_KIND_RESPONSE, HEAD_MAX, on_body, l);
    l->next = c->links;
    if (l->next) l->next->prev = l;
    c->links = l;
    int ms = call->opts.connect_timeout_ms ? call->opts.connect_timeout_ms : CONNECT_MS;
    uv_timer_start(&l->timer, on_timeout, (uint64_t)ms, 0);
    if (uv_tcp_connect(&l->connect, &l->tcp, (struct sockaddr *)&c->addr, on_connected) != 0)
        uv_timer_start(&l->timer, on_refused_at_once, 0, 0);
    return l;
}

static http_link *take_idle(http_client *c) {
    for (http_link *l = c->links; l; l = l->next) {
        if (l->state != LINK_IDLE || l->closing) continue;
        c->idle--;
        l->state = LINK_BUSY;
        l->used_before = true;
        return l;
    }
    return NULL;
}

static void start_on_link(http_call *call, bool fresh) {
    http_link *l;
    while (!fresh && (l = take_idle(call->client)) != NULL) {
        l->call = call;
        call->link = l;
        link_begin(l);
        if (send_request(l)) return;
        l->call = NULL; /* dead, and nothing was sent: the next one */
        link_close(l);
    }
    call->link = link_open(call);
}

static bool is_own_header(const char *name) {
    return str_ieq(name, "Host") || str_ieq(name, "Content-Length") || str_ieq(name, "Transfer-Encoding") ||
           str_ieq(name, "Connection") || str_ieq(name, "Expect") || str_ieq(name, "Upgrade");
}

static bool write_head(http_client *c, const http_call_opts *o, buf *out, err *e) {
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n", o->method, o->path, c->host);
    for (size_t i = 0; i < o->header_count; i++) {
        const http_header *h = &o->headers[i];
        if (!http_is_field_name(h->name) || !http_is_field_value(h->value) || is_own_header(h->name))
            return err_set(e, ERR_INVALID, "header '%.60s' cannot be sent", h->name ? h->name : "");
        buf_printf(out, "%s: %s\r\n", h->name, h->value);
    }
    if (o->body_len || str_eq(o->method, "POST") || str_eq(o->method, "PUT") || str_eq(o->method, "PATCH"))
        buf_printf(out, "Content-Length: %zu\r\n", o->body_len);
    buf_puts(out, "\r\n");
    return !out->full || err_set(e, ERR_TOO_LARGE, "the request's header is too long");
}

static bool is_target(const char *path) {
    if (str_empty(path) || path[0] != '/') return false;
    for (; *path; path++)
        if (*path <= ' ' || *path > '~') return false;
    return true;
}

static bool write_request(http_client *c, const http_call_opts *o, char **wire, size_t *len, err *e) {
    if (!http_is_field_name(o->method)) return err_set(e, ERR_INVALID, "bad method");
    if (!is_target(o->path)) return err_set(e, ERR_INVALID, "bad request path");
    buf head;
    buf_init(&head, HEAD_MAX);
    if (!write_head(c, o, &head, e)) {
        buf_free(&head);
        return false;
    }
    *len = head.len + o->body_len;
    *wire = mem_resize(buf_take(&head, NULL), *len);
    if (o->body_len) memcpy(*wire + *len - o->body_len, o->body, o->body_len);
    return true;
}

/* ---- the interface ---- */

http_client *http_client_new(uv_loop_t *loop, const char *ip, int port) {
    http_client *c = mem_alloc(1, sizeof *c);
    c->loop = loop;
    bool v6 = strchr(ip, ':') != NULL;
    int rc = v6 ? uv_ip6_addr(ip, port, (struct sockaddr_in6 *)&c->addr)
                : uv_ip4_addr(ip, port, (struct sockaddr_in *)&c->addr);
    char *host = str_fmt(v6 ? "[%s]:%d" : "%s:%d", ip, port);
    bool fits = str_copy(c->host, sizeof c->host, host);
    free(host);
    if (rc == 0 && fits) return c;
    free(c);
    return NULL;
}

void http_client_close(http_client *c) {
    if (!c || c->closing) return;
    c->closing = true;
    for (http_call *call = c->calls, *next; call; call = next) {
        next = call->next;
        if (!call->done) http_call_abort(call);
    }
    for (http_link *l = c->links; l; l = l->next) link_close(l);
    client_check_free(c);
}

http_call *http_client_send(http_client *c, const http_call_opts *opts, err *e) {
    static const char *const idempotent[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"};
    http_call_opts o = *opts;
    if (!o.method) o.method = "GET";
    char *wire = NULL;
    size_t wire_len = 0;
    if (!write_request(c, &o, &wire, &wire_len, e)) return NULL;
    http_call *call = mem_alloc(1, sizeof *call);
    call->client = c;
    call->wire = wire;
    call->wire_len = wire_len;
    call->is_head = str_eq(o.method, "HEAD");
    for (size_t i = 0; i < sizeof idempotent / sizeof idempotent[0]; i++)
        call->idempotent |= str_eq(o.method, idempotent[i]);
    o.method = o.path = NULL;
    o.headers = NULL;
    o.body = NULL;
    call->opts = o;
    call->next = c->calls;
    if (call->next) call->next->prev = call;
    c->calls = call;
    start_on_link(call, false);
    return call;
}

int http_call_status(const http_call *call) {
    return call->status;
}

const char *http_call_header(const http_call *call, const char *name) {
    return call->link && call->told ? http_parse_header(&call->link->parser, name) : NULL;
}

static void set_paused(http_call *call, bool paused) {
    call->paused = paused;
    http_link *l = call->link;
    if (!l || l->state != LINK_BUSY) return;
    set_reading(l, !paused);
    arm_idle(l);
}

void http_call_pause(http_call *call) {
    set_paused(call, true);
}

void http_call_resume(http_call *call) {
    set_paused(call, false);
}

void http_call_abort(http_call *call) {
    if (!call || call->done) return;
    http_link *l = call->link;
    if (l) {
        l->call = NULL;
        link_close(l);
    }
    free_call(call);
}

/* ---- whole answers ---- */

static void fetch_data(void *ctx, const char *data, size_t len) {
    fetch *f = ctx;
    if (buf_append(&f->body, data, len)) return;
    http_fetch_fn *fn = f->fn;
    void *fn_ctx = f->ctx;
    err e;
    err_set(&e, ERR_TOO_LARGE, "the answer is longer than %zu bytes", f->body.max);
    http_call_abort(f->call); /* frees f */
    fn(fn_ctx, 0, "", 0, &e);
}

static void fetch_done(void *ctx, const err *e) {
    fetch *f = ctx;
    if (e)
        f->fn(f->ctx, 0, "", 0, e);
    else
        f->fn(f->ctx, f->call->status, buf_str(&f->body), f->body.len, NULL);
}

http_call *http_client_fetch(http_client *c, const http_call_opts *opts, size_t max_body, http_fetch_fn *fn, void *ctx,
                             err *e) {
    fetch *f = mem_alloc(1, sizeof *f);
    f->fn = fn;
    f->ctx = ctx;
    buf_init(&f->body, max_body);
    http_call_opts o = *opts;
    o.on_headers = NULL;
    o.on_data = fetch_data;
    o.on_done = fetch_done;
    o.ctx = f;
    http_call *call = http_client_send(c, &o, e);
    if (!call) {
        free(f);
        return NULL;
    }
    f->call = call;
    call->fetch = f;
    return call;
}
