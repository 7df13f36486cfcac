/* http_server.c - see http_server.h: the listener and its connections.
 *
 * A connection is a small state machine (conn_phase in http_conn.h) fed by conn_pump(). Reading goes on during an
 * answer, because that is how a client that left is noticed; what arrives then waits in c->in. */
#include "net/http_conn.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    READ_SIZE = 64 * 1024,
    PIPELINE_MAX = 16 * 1024, /* reading stops when so much waits for its turn */
    LINGER_MS = 3000,
    REFUSED_MAX = 64, /* connections beyond the limit that may be waiting for their 503 */
};

struct http_server {
    http_server_opts opts;
    uv_loop_t *loop;
    uv_tcp_t tcp;
    uv_timer_t grace;
    http_conn *conns;
    int count;
    int port;
    uint8_t open_handles;
    bool closing;
    void (*done)(void *ctx);
    void *done_ctx;
    char read_buf[READ_SIZE]; /* one for all: libuv fills and delivers it without another read in between */
};

static void pump_kept(http_conn *c);

/* ---- the end of things ---- */

static void on_listener_closed(uv_handle_t *handle);

static void server_check_done(http_server *srv) {
    if (!srv->closing || srv->count) return;
    if (!uv_is_closing((uv_handle_t *)&srv->grace)) uv_close((uv_handle_t *)&srv->grace, on_listener_closed);
    if (srv->open_handles) return;
    if (srv->done) srv->done(srv->done_ctx);
    free(srv);
}

void conn_unref(http_conn *c) {
    if (!c->closed || c->req) return;
    http_parse_free(&c->parser);
    buf_free(&c->in);
    free(c);
}

static void unlink_conn(http_conn *c) {
    if (c->prev)
        c->prev->next = c->next;
    else
        c->srv->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    c->srv->count--;
}

static void on_handle_closed(uv_handle_t *handle) {
    http_conn *c = handle->data;
    if (--c->open_handles) return;
    http_server *srv = c->srv;
    unlink_conn(c);
    c->srv = NULL;
    c->closed = true;
    if (c->req) req_notify_close(c->req);
    if (c->req && !c->req->handed) { /* no handler ever saw it */
        req_free(c->req);
        c->req = NULL;
    }
    conn_unref(c);
    server_check_done(srv);
}

void conn_close(http_conn *c) {
    if (c->closing) return;
    c->closing = true;
    uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

/* ---- timers ---- */

static void on_deadline(uv_timer_t *timer);

static void arm(http_conn *c, int ms) {
    uv_timer_start(&c->timer, on_deadline, (uint64_t)ms, 0);
}

static uint64_t queued(const http_conn *c) {
    return uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
}

static uint64_t taken(const http_conn *c) {
    return c->written - queued(c);
}

/* From the answer on, the timer watches that the client takes what waits for it. */
static void watch_sending(http_conn *c) {
    if (c->phase < CONN_ANSWER || !queued(c) || uv_is_active((uv_handle_t *)&c->timer)) return;
    c->taken_at_tick = taken(c);
    arm(c, c->srv->opts.send_timeout_ms);
}

/* The longest wait for the next byte of a body, and a slowest pace for all of it: 1 byte per ms. */
static void arm_body(http_conn *c) {
    int timeout = c->srv->opts.body_timeout_ms;
    uint64_t end = c->body_start_ms + (uint64_t)timeout + c->req->body.len;
    uint64_t now = uv_now(c->loop);
    uint64_t left = end > now ? end - now : 0;
    arm(c, left < (uint64_t)timeout ? (int)left : timeout);
}

/* ---- writing ---- */

typedef struct pending_write {
    uv_write_t req;
    char data[];
} pending_write;

static void conn_drained(http_conn *c);

static void on_written(uv_write_t *w, int status) {
    http_conn *c = w->handle->data;
    free(w);
    if (c->closing) return;
    if (status < 0)
        conn_close(c);
    else if (!queued(c))
        conn_drained(c);
}

/* Copies what try_write left over, from byte `skip` of all buffers on. */
static void queue_rest(http_conn *c, const uv_buf_t *bufs, unsigned count, size_t skip, size_t total) {
    pending_write *w = mem_alloc(1, sizeof *w + total - skip);
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t drop = skip < bufs[i].len ? skip : bufs[i].len;
        skip -= drop;
        if (bufs[i].len > drop) memcpy(w->data + at, bufs[i].base + drop, bufs[i].len - drop);
        at += bufs[i].len - drop;
    }
    uv_buf_t rest = uv_buf_init(w->data, (unsigned)at);
    if (uv_write(&w->req, (uv_stream_t *)&c->tcp, &rest, 1, on_written) != 0) {
        free(w);
        conn_close(c);
    }
}

void conn_write(http_conn *c, uv_buf_t *bufs, unsigned count) {
    if (c->closing) return;
    size_t total = 0;
    for (unsigned i = 0; i < count; i++) total += bufs[i].len;
    int n = uv_try_write((uv_stream_t *)&c->tcp, bufs, count);
    if (n < 0 && n != UV_EAGAIN) {
        conn_close(c);
        return;
    }
    c->written += total;
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent < total) queue_rest(c, bufs, count, sent, total);
    if (!c->closing) watch_sending(c);
}

/* ---- between exchanges ---- */

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b) {
    (void)suggested;
    http_conn *c = handle->data;
    *b = uv_buf_init(c->srv->read_buf, READ_SIZE);
}

static void set_reading(http_conn *c, bool on) {
    if (c->reading == on || c->eof || c->closing) return;
    c->reading = on;
    if (!on)
        uv_read_stop((uv_stream_t *)&c->tcp);
    else if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
        conn_close(c);
}

/* Ready for the next request. What waits in c->in is taken up from the loop, so that no handler runs inside the
 * http_reply() of another. */
static void conn_settle(http_conn *c) {
    if (c->closing || c->pumping || c->phase != CONN_IDLE) return;
    if (c->in.len) {
        arm(c, 0);
    } else if (c->eof || c->srv->closing) {
        conn_close(c);
    } else {
        buf_free(&c->in);
        arm(c, c->srv->opts.keep_alive_ms);
        set_reading(c, true);
    }
}

static void on_shutdown(uv_shutdown_t *shutdown, int status) {
    http_conn *c = shutdown->handle->data;
    if (c->closing) return;
    if (status < 0 || c->eof)
        conn_close(c);
    else
        arm(c, LINGER_MS);
}

/* Closing while the client still sends would make the kernel reset the connection, and the answer might be lost:
 * so only our side is closed, and input is dropped until the client closes too. */
static void conn_linger(http_conn *c) {
    c->phase = CONN_LINGER;
    uv_timer_stop(&c->timer);
    buf_free(&c->in);
    set_reading(c, true);
    if (c->closing) return;
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) != 0)
        conn_close(c);
    else
        watch_sending(c);
}

void conn_answered(http_conn *c, bool keep_alive) {
    if (!keep_alive || c->last || c->srv->closing) {
        conn_linger(c);
        return;
    }
    http_parse_next(&c->parser);
    uv_timer_stop(&c->timer);
    if (queued(c)) {
        c->phase = CONN_FLUSH; /* the next request waits: a client that does not read must not fill our memory */
        watch_sending(c);
    } else {
        c->phase = CONN_IDLE;
        conn_settle(c);
    }
}

static void conn_drained(http_conn *c) {
    if (c->phase == CONN_FLUSH) {
        uv_timer_stop(&c->timer);
        c->phase = CONN_IDLE;
        conn_settle(c);
    } else if (c->phase == CONN_ANSWER) {
        uv_timer_stop(&c->timer);
        http_handler *fn = c->req ? c->req->on_drain : NULL;
        if (!fn) return;
        c->req->on_drain = NULL;
        fn(c->req->drain_ctx, c->req);
    }
}

/* ---- refusing ---- */

/* The last answer on this connection, by the server itself. A handler that was told of the request in on_headers, and
 * set on_close, hears that it is over. */
static void conn_refuse(http_conn *c, int status, const char *message) {
    c->last = true;
    if (c->req && c->req->framing != REPLY_NOT_BEGUN) {
        conn_close(c);
        return;
    }
    if (c->req) req_notify_close(c->req);
    if (!c->req) req_new(c);
    if (status == 503) http_header_add(c->req, "Retry-After", "1");
    http_reply_error(c->req, status, NULL, NULL, "%s", message);
}

static void on_deadline(uv_timer_t *timer) {
    http_conn *c = timer->data;
    switch (c->phase) {
    case CONN_IDLE:
        if (c->in.len)
            pump_kept(c);
        else
            conn_close(c);
        break;
    case CONN_HEAD:
        conn_refuse(c, 408, "the request header took too long");
        break;
    case CONN_BODY:
        conn_refuse(c, 408, "the request body took too long");
        break;
    case CONN_ANSWER:
    case CONN_FLUSH:
    case CONN_LINGER:
        if (queued(c) && taken(c) != c->taken_at_tick)
            watch_sending(c);
        else if (queued(c) || c->phase == CONN_LINGER)
            conn_close(c);
        break;
    }
}

/* ---- reading requests ---- */

static bool is_known_method(const char *method) {
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq(method, known[i])) return true;
    return false;
}

static bool on_body(void *ctx, const char *data, size_t len) {
    http_conn *c = ctx;
    if (buf_append(&c->req->body, data, len)) return true;
    return http_parse_refuse(&c->parser, 413, "the body is longer than %zu bytes", c->req->max_body);
}

static void await_body(http_conn *c, bool body_is_here) {
    http_req *req = c->req;
    const http_server_opts *opts = &c->srv->opts;
    if (req->max_body > opts->max_body_cap) req->max_body = opts->max_body_cap;
    buf_init(&req->body, req->max_body);
    if (http_parse_length(&c->parser) > req->max_body) {
        char text[80];
        snprintf(text, sizeof text, "the body is longer than %zu bytes", req->max_body);
        conn_refuse(c, 413, text);
        return;
    }
    if (http_req_header(req, "Expect") && !req->is_1_0 && !body_is_here) {
        uv_buf_t go_on = uv_buf_init("HTTP/1.1 100 Continue\r\n\r\n", 25);
        conn_write(c, &go_on, 1);
    }
    c->body_start_ms = uv_now(c->loop);
    arm_body(c);
}

static void on_head(http_conn *c, bool body_is_here) {
    uv_timer_stop(&c->timer);
    c->phase = CONN_BODY;
    http_req *req = req_new(c);
    req->max_body = c->srv->opts.max_body;
    req->complete = !http_parse_has_body(&c->parser);
    err e;
    const char *expect = http_req_header(req, "Expect");
    if (!is_known_method(http_req_method(req))) {
        conn_refuse(c, 501, "this method is not implemented");
    } else if (!req_read_head(req, &e)) {
        conn_refuse(c, 400, e.msg);
    } else if (expect && !str_ieq(expect, "100-continue")) {
        conn_refuse(c, 417, "only 'Expect: 100-continue' is known");
    } else {
        if (c->srv->opts.on_headers) c->srv->opts.on_headers(c->srv->opts.ctx, req);
        if (c->closing || !c->req) return; /* answered already */
        if (req->framing != REPLY_NOT_BEGUN) {
            req->handed = true;
            c->phase = CONN_ANSWER;
            watch_sending(c);
        } else if (!req->complete) {
            await_body(c, body_is_here);
        }
    }
}

static void on_request(http_conn *c) {
    uv_timer_stop(&c->timer);
    c->req->complete = true;
    c->req->handed = true;
    c->phase = CONN_ANSWER;
    c->srv->opts.handler(c->srv->opts.ctx, c->req);
}

static void handle(http_conn *c, http_parse_result result, bool more_is_here) {
    if (result == HTTP_PARSE_HEAD)
        on_head(c, more_is_here);
    else if (result == HTTP_PARSE_DONE)
        on_request(c);
    else if (result == HTTP_PARSE_BAD)
        conn_refuse(c, c->parser.status, c->parser.why.msg);
    else if (c->phase == CONN_BODY && c->req)
        arm_body(c);
}

/* Keeps bytes for later, within bounds: no read is started that could pass them. */
static void keep(http_conn *c, const char *data, size_t len) {
    buf_append(&c->in, data, len);
    if (c->in.len >= PIPELINE_MAX) set_reading(c, false);
}

/* Reads requests until one is being answered, or the bytes are used up. What is left over goes to c->in. */
static void feed(http_conn *c, const char *data, size_t len) {
    bool again = false; /* behind a head the parser goes on even without bytes: there may be no body */
    while (!c->closing && c->phase <= CONN_BODY && (len || again)) {
        if (c->phase == CONN_IDLE) {
            c->phase = CONN_HEAD;
            arm(c, c->srv->opts.header_timeout_ms);
        }
        size_t used;
        http_parse_result result = http_parse_feed(&c->parser, data, len, &used);
        data += used;
        len -= used;
        handle(c, result, len > 0);
        again = result == HTTP_PARSE_HEAD && c->phase == CONN_BODY;
    }
    if (len && !c->closing && c->phase != CONN_LINGER) keep(c, data, len);
}

static void conn_pump(http_conn *c, const char *data, size_t len) {
    c->pumping = true;
    feed(c, data, len);
    c->pumping = false;
    if (c->in.len < PIPELINE_MAX) set_reading(c, true);
    if (c->eof && c->phase <= CONN_BODY && !c->in.len) conn_close(c);
    conn_settle(c);
}

static void pump_kept(http_conn *c) {
    buf kept = c->in;
    buf_init(&c->in, kept.max);
    conn_pump(c, kept.data, kept.len);
    buf_free(&kept);
}

static void on_eof(http_conn *c) {
    set_reading(c, false);
    c->eof = true;
    /* An answer that is complete still goes out. */
    bool more = c->phase == CONN_IDLE && c->in.len;
    if ((c->phase < CONN_FLUSH && !more) || (c->phase == CONN_LINGER && !queued(c))) conn_close(c);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b) {
    http_conn *c = stream->data;
    if (c->closing || n == 0) return;
    if (n == UV_EOF) {
        on_eof(c);
    } else if (n < 0) {
        conn_close(c);
    } else if (c->phase == CONN_ANSWER || c->phase == CONN_FLUSH || c->in.len) {
        keep(c, b->base, (size_t)n);
    } else if (c->phase != CONN_LINGER) {
        conn_pump(c, b->base, (size_t)n);
    }
}

/* ---- the listener ---- */

static http_conn *conn_new(http_server *srv) {
    http_conn *c = mem_alloc(1, sizeof *c);
    c->srv = srv;
    c->loop = srv->loop;
    uv_tcp_init(srv->loop, &c->tcp);
    uv_timer_init(srv->loop, &c->timer);
    c->tcp.data = c->timer.data = c;
    c->open_handles = 2;
    http_parse_init(&c->parser, HTTP_KIND_REQUEST, srv->opts.max_header, on_body, c);
    buf_init(&c->in, PIPELINE_MAX + READ_SIZE);
    c->next = srv->conns;
    if (c->next) c->next->prev = c;
    srv->conns = c;
    srv->count++;
    return c;
}

static void on_connection(uv_stream_t *listener, int status) {
    http_server *srv = listener->data;
    if (status < 0) {
        log_warn("http", "accept: %s", uv_strerror(status));
        return;
    }
    http_conn *c = conn_new(srv);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0 || srv->count > srv->opts.max_connections + REFUSED_MAX) {
        conn_close(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 60);
    if (srv->count > srv->opts.max_connections) {
        conn_refuse(c, 503, "too many connections");
        return;
    }
    arm(c, srv->opts.header_timeout_ms);
    set_reading(c, true);
}

static void set_defaults(http_server_opts *o) {
    if (!o->ip) o->ip = "127.0.0.1";
    if (!o->max_header) o->max_header = 64 * 1024;
    if (!o->max_body) o->max_body = 1024 * 1024;
    if (!o->max_body_cap) o->max_body_cap = 256 * 1024 * 1024;
    if (!o->header_timeout_ms) o->header_timeout_ms = 10000;
    if (!o->body_timeout_ms) o->body_timeout_ms = 30000;
    if (!o->keep_alive_ms) o->keep_alive_ms = 75000;
    if (!o->send_timeout_ms) o->send_timeout_ms = 60000;
    if (!o->max_connections) o->max_connections = 4096;
}

static bool bind_and_listen(http_server *srv, err *e) {
    const http_server_opts *o = &srv->opts;
    struct sockaddr_storage addr;
    if (uv_ip4_addr(o->ip, o->port, (struct sockaddr_in *)&addr) != 0 &&
        uv_ip6_addr(o->ip, o->port, (struct sockaddr_in6 *)&addr) != 0)
        return err_set(e, ERR_INVALID, "'%.60s' is not an IP address", o->ip);
    int rc = uv_tcp_bind(&srv->tcp, (struct sockaddr *)&addr, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&srv->tcp, 511, on_connection); /* libuv reports a taken port here */
    if (rc == UV_EADDRINUSE) return err_set(e, ERR_CONFLICT, "port %d on %s is taken", o->port, o->ip);
    if (rc != 0)
        return err_set(e, rc == UV_EACCES ? ERR_DENIED : ERR_IO, "listen on %s port %d: %s", o->ip, o->port,
                       uv_strerror(rc));
    int len = sizeof addr;
    uv_tcp_getsockname(&srv->tcp, (struct sockaddr *)&addr, &len);
    srv->port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                 : ((struct sockaddr_in *)&addr)->sin_port);
    return true;
}

http_server *http_server_listen(uv_loop_t *loop, const http_server_opts *opts, err *e) {
    http_server *srv = mem_alloc(1, sizeof *srv);
    srv->opts = *opts;
    set_defaults(&srv->opts);
    srv->loop = loop;
    uv_tcp_init(loop, &srv->tcp);
    uv_timer_init(loop, &srv->grace);
    srv->tcp.data = srv->grace.data = srv;
    srv->open_handles = 2;
    bool ok = bind_and_listen(srv, e);
    srv->opts.ip = NULL; /* was borrowed */
    if (ok) return srv;
    http_server_close(srv, 0, NULL, NULL);
    return NULL;
}

int http_server_port(const http_server *srv) {
    return srv->port;
}

int http_server_connections(const http_server *srv) {
    return srv->count;
}

static void on_listener_closed(uv_handle_t *handle) {
    http_server *srv = handle->data;
    srv->open_handles--;
    server_check_done(srv);
}

static void on_grace_over(uv_timer_t *timer) {
    http_server *srv = timer->data;
    for (http_conn *c = srv->conns; c; c = c->next) conn_close(c);
}

void http_server_close(http_server *srv, int grace_ms, void (*done)(void *ctx), void *ctx) {
    if (!srv || srv->closing) return;
    srv->closing = true;
    srv->done = done;
    srv->done_ctx = ctx;
    uv_close((uv_handle_t *)&srv->tcp, on_listener_closed);
    for (http_conn *c = srv->conns; c; c = c->next) {
        c->last = true;
        if (c->phase == CONN_IDLE && !c->in.len) conn_close(c);
    }
    if (srv->count)
        uv_timer_start(&srv->grace, on_grace_over, (uint64_t)grace_ms, 0);
    else
        uv_close((uv_handle_t *)&srv->grace, on_listener_closed);
}
