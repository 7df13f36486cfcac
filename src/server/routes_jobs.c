/* routes_jobs.c - the queue over HTTP. */
#include "server/routes.h"

#include "base/str.h"
#include "server/events.h"
#include "server/image_request.h"
#include "server/sse_sink.h"

#include <stdlib.h>

enum { JOB_JSON_MAX = 16 * 1024 * 1024, LIST_DEFAULT = 50 };

/* The id in the path; 0 when it was answered with 404. */
static int64_t job_of(http_req *req) {
    const char *name = http_req_param(req, "id");
    int64_t id = job_id_from_name(name);
    if (!id) http_reply_error(req, 404, NULL, "id", "there is no job '%.60s'", name);
    return id;
}

static void reply_job(app *a, http_req *req, int status, const job *j) {
    buf out;
    buf_init(&out, JOB_JSON_MAX);
    jobs_write(a->jobs, j, &out);
    routes_reply_json(req, status, &out);
}

/* ---- submitting ---------------------------------------------------------------------------------------------------
 */

typedef struct submission {
    app *a;
    http_req *req;
} submission;

/* A client that is gone by now loses only the answer: asynchronous jobs go on. */
static void on_submitted(void *ctx, const image_request_result *r) {
    submission *s = ctx;
    if (r->job)
        reply_job(s->a, s->req, 202, r->job);
    else
        routes_reply_refusal(s->a, s->req, r);
    free(s);
}

static void post_job(void *ctx, http_req *req) {
    submission *s = mem_alloc(1, sizeof *s);
    *s = (submission){ctx, req};
    size_t len;
    char *body = http_req_take_body(req, &len);
    image_request_submit(ctx, body, len, http_req_header(req, "Content-Type"), IMAGE_REQUEST_STRICT, on_submitted, s);
}

void routes_reply_refusal(app *a, http_req *req, const image_request_result *r) {
    if (!r->code) {
        routes_reply_invalid(req, &r->why);
        return;
    }
    bool full = str_eq(r->code, "queue_full");
    int status = full ? 429 : http_status_of(r->why.code);
    if (str_eq(r->code, "model_unsupported")) status = 422;
    if (full) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", jobs_retry_after_s(a->jobs));
        http_header_add(req, "Retry-After", seconds);
    } else if (status == 503 && !str_eq(r->code, "model_not_loaded")) { /* which waiting does not help */
        http_header_add(req, "Retry-After", "5");
    }
    http_reply_error(req, status, r->code, str_starts(r->code, "model_") ? "model" : NULL, "%s", r->why.msg);
}

/* ---- asking -------------------------------------------------------------------------------------------------------
 */

static bool known_statuses(const char *list, char *bad, size_t cap) {
    while (*list) {
        size_t n = strcspn(list, ",");
        job_status status;
        char *name = str_ndup(list, n);
        bool known = job_status_from_name(name, &status);
        if (!known) str_copy(bad, cap, name);
        free(name);
        if (!known) return false;
        list += n + (list[n] == ',');
    }
    return true;
}

static void get_jobs(void *ctx, http_req *req) {
    app *a = ctx;
    const char *status = http_req_query(req, "status"), *before = http_req_query(req, "before");
    char bad[40];
    int64_t limit = LIST_DEFAULT, from = 0;
    if (!routes_query_int(req, "limit", &limit, 1, 200)) return;
    if (!str_empty(before) && !(from = job_id_from_name(before))) {
        http_reply_error(req, 400, "invalid", "before", "before: '%.40s' is no job", before);
    } else if (status && !known_statuses(status, bad, sizeof bad)) {
        http_reply_error(req, 400, "invalid", "status",
                         "status: '%s' is none of queued, running, done, failed, cancelled, interrupted", bad);
    } else {
        jobs_list(a->jobs, status, from, (int)limit, routes_reply_result, req);
    }
}

static void get_job(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t id = job_of(req);
    if (id) jobs_get(a->jobs, id, routes_reply_result, req);
}

/* What is over already is found on the disk: 409 with its status; unknown: 404. */
static void reply_over(void *ctx, const err *why, const char *json, size_t len) {
    http_req *req = ctx;
    (void)json;
    (void)len;
    if (why)
        routes_reply_invalid(req, why);
    else
        http_reply_error(req, 409, "conflict", "id", "the job %s is over", http_req_param(req, "id"));
}

static void post_cancel(void *ctx, http_req *req) {
    app *a = ctx;
    err why = {0};
    int64_t id = job_of(req);
    if (!id) return;
    if (jobs_cancel(a->jobs, id, &why)) {
        const job *j = jobs_find(a->jobs, id); /* it stays until its end is saved */
        reply_job(a, req, 200, j);
    } else if (why.code == ERR_NOT_FOUND) {
        jobs_get(a->jobs, id, reply_over, req);
    } else {
        routes_reply_invalid(req, &why);
    }
}

/* ---- following one ------------------------------------------------------------------------------------------------
 */

static void send_and_end(void *ctx, const err *why, const char *json, size_t len) {
    http_req *req = ctx;
    (void)len;
    if (why) {
        routes_reply_invalid(req, why);
        return;
    }
    http_sse *s = http_sse_begin(req, NULL, NULL, NULL);
    if (!s) return;
    http_sse_send(s, NULL, "job", json);
    http_sse_end(s);
}

static void get_job_events(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t id = job_of(req);
    if (!id) return;
    const job *j = jobs_find(a->jobs, id);
    if (!j || job_is_over(j->status)) {
        jobs_get(a->jobs, id, send_and_end, req);
        return;
    }
    buf now;
    buf_init(&now, JOB_JSON_MAX);
    jobs_write(a->jobs, j, &now);
    const event_filter filter = {.job = j->name};
    sse_sink_start(a->events, req, &filter, buf_str(&now), NULL, NULL);
    buf_free(&now);
}

void routes_jobs(route_list *l) {
    static const http_route routes[] = {
        {"POST", "/v1/jobs", post_job, IMAGE_REQUEST_BODY_MAX},
        {"GET", "/v1/jobs", get_jobs, 0},
        {"GET", "/v1/jobs/{id}", get_job, 0},
        {"GET", "/v1/jobs/{id}/events", get_job_events, 0},
        {"POST", "/v1/jobs/{id}/cancel", post_cancel, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
