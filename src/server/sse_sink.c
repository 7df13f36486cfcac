/* sse_sink.c - see sse_sink.h. */
#include "server/sse_sink.h"
#include "base/str.h"

#include <stdlib.h>

enum { QUEUE_MAX = 1024 * 1024 }; /* one event of a large batch must fit */

typedef struct sse_sink {
    events *hub;
    http_sse *stream;
    event_sub *sub; /* NULL while it is being subscribed, and after the hub ended it */
    sse_translate translate;
    void *ctx;
} sse_sink;

static bool sink_write(void *ctx, const char *bytes, size_t len) {
    sse_sink *s = ctx;
    if (!s->translate) return http_sse_send_text(s->stream, bytes, len);
    s->translate(s->ctx, s->stream);
    return true;
}

static size_t sink_pending(void *ctx) {
    return http_sse_queued(((sse_sink *)ctx)->stream);
}

static void sink_end(void *ctx) {
    sse_sink *s = ctx;
    http_sse_end(s->stream);
    free(s);
}

static void on_close(void *ctx, http_sse *stream) {
    (void)stream;
    sse_sink *s = ctx;
    events_unsubscribe(s->hub, s->sub);
    free(s);
}

void sse_sink_start(events *h, http_req *req, const event_filter *filter, const char *now, sse_translate translate,
                    void *ctx) {
    event_filter f = *filter;
    const char *header = http_req_header(req, "Last-Event-ID");
    if (!f.last_id) f.last_id = str_empty(header) ? http_req_query(req, "last_event_id") : header;
    char *last_id = str_dup(f.last_id); /* the request's own memory may go with http_sse_begin */
    f.last_id = last_id;

    sse_sink *s = mem_alloc(1, sizeof *s);
    *s = (sse_sink){.hub = h, .translate = translate, .ctx = ctx};
    const http_sse_opts opts = {.max_queue = QUEUE_MAX};
    s->stream = http_sse_begin(req, &opts, on_close, s);
    if (s->stream) {
        if (now && str_empty(last_id)) http_sse_send(s->stream, NULL, "job", now);
        if (translate) translate(ctx, s->stream);
        const event_sink sink = {s, sink_write, sink_pending, sink_end};
        s->sub = events_subscribe(h, &f, &sink);
    } else {
        free(s);
    }
    free(last_id);
}
