/* routes_events.c - what happens, as it happens; and the progress of the running job for those who ask. */
#include "server/routes.h"

#include "server/jobs.h"
#include "server/sse_sink.h"

static void get_events(void *ctx, http_req *req) {
    app *a = ctx;
    const event_filter all = {0};
    sse_sink_start(a->events, req, &all, NULL, NULL, NULL);
}

static void get_progress(void *ctx, http_req *req) {
    app *a = ctx;
    buf out;
    buf_init(&out, 4096);
    jobs_write_progress(a->jobs, &out);
    routes_reply_json(req, 200, &out);
}

static void send_progress(void *ctx, http_sse *s) {
    app *a = ctx;
    buf out;
    buf_init(&out, 4096);
    jobs_write_progress(a->jobs, &out);
    http_sse_send(s, NULL, NULL, buf_str(&out));
    buf_free(&out);
}

/* Every `job` event is a reason to look again. */
static void get_progress_stream(void *ctx, http_req *req) {
    app *a = ctx;
    const event_filter jobs_only = {.only = "job", .last_id = ""};
    sse_sink_start(a->events, req, &jobs_only, NULL, send_progress, a);
}

void routes_events(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/v1/events", get_events, 0},
        {"GET", "/v1/progress", get_progress, 0},
        {"GET", "/v1/stream/progress", get_progress_stream, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
