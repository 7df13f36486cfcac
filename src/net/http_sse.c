/* http_sse.c - see http_sse.h. */
#include "net/http_sse.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { EVENT_MAX = 16 * 1024 * 1024 };

struct http_sse {
    http_req *req; /* owned */
    uv_timer_t heartbeat;
    size_t max_queue;
    void (*on_close)(void *ctx, http_sse *s);
    void *ctx;
    bool quiet; /* nothing was sent since the last heartbeat */
    bool cut;
};

static void on_timer_closed(uv_handle_t *handle) {
    free(handle->data);
}

static void release(http_sse *s) {
    uv_close((uv_handle_t *)&s->heartbeat, on_timer_closed);
}

static void on_gone(void *ctx, http_req *req) {
    http_sse *s = ctx;
    (void)req;
    s->cut = true;
    if (s->on_close) s->on_close(s->ctx, s);
    release(s);
}

static void on_heartbeat(uv_timer_t *timer) {
    http_sse *s = timer->data;
    if (s->quiet) http_sse_send_text(s, ":\n\n", 3);
    s->quiet = true;
}

http_sse *http_sse_begin(http_req *req, const http_sse_opts *opts, void (*on_close)(void *ctx, http_sse *s),
                         void *ctx) {
    static const http_sse_opts defaults;
    if (!opts) opts = &defaults;
    http_header_add(req, "Cache-Control", "no-cache");
    http_reply_begin(req, 200, "text/event-stream; charset=utf-8");
    if (http_req_is_head(req)) {
        http_reply_end(req);
        return NULL;
    }
    http_req_drop_body(req);
    http_sse *s = mem_alloc(1, sizeof *s);
    s->req = req;
    s->max_queue = opts->max_queue ? opts->max_queue : 256 * 1024;
    s->on_close = on_close;
    s->ctx = ctx;
    http_req_on_close(req, on_gone, s);
    uv_timer_init(http_req_loop(req), &s->heartbeat);
    s->heartbeat.data = s;
    uint64_t pause = (uint64_t)(opts->heartbeat_ms ? opts->heartbeat_ms : 15000);
    uv_timer_start(&s->heartbeat, on_heartbeat, pause, pause);
    char *hello = str_fmt("retry: %d\n\n", opts->retry_ms ? opts->retry_ms : 2000);
    http_sse_send_text(s, hello, strlen(hello));
    free(hello);
    return s;
}

/* "name: value" lines; a line break in the value begins another line of the same name, or ends an id or event. */
static void add_field(buf *out, const char *name, const char *value, bool many_lines) {
    do {
        size_t n = strcspn(value, "\r\n");
        buf_printf(out, "%s: ", name);
        buf_append(out, value, n);
        buf_putc(out, '\n');
        value += n;
        if (!*value) return;
        value += value[0] == '\r' && value[1] == '\n' ? 2 : 1;
    } while (many_lines);
}

void http_sse_format(buf *out, const char *id, const char *event, const char *data) {
    if (id) add_field(out, "id", id, false);
    if (event) add_field(out, "event", event, false);
    add_field(out, "data", data, true);
    buf_putc(out, '\n');
}

bool http_sse_send_text(http_sse *s, const char *text, size_t len) {
    if (s->cut) return false;
    s->quiet = false;
    http_reply_write(s->req, text, len);
    if (http_reply_queued(s->req) <= s->max_queue) return true;
    s->cut = true;
    http_req_cut(s->req);
    return false;
}

bool http_sse_send(http_sse *s, const char *id, const char *event, const char *data) {
    buf text;
    buf_init(&text, EVENT_MAX);
    http_sse_format(&text, id, event, data);
    bool ok = !text.full && http_sse_send_text(s, text.data, text.len);
    buf_free(&text);
    return ok;
}

size_t http_sse_queued(const http_sse *s) {
    return http_reply_queued(s->req);
}

void http_sse_end(http_sse *s) {
    http_req_on_close(s->req, NULL, NULL);
    http_reply_end(s->req);
    release(s);
}
