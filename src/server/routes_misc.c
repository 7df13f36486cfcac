/* routes_misc.c - the page's settings and the end of the log. */
#include "server/routes.h"

#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "server/crashes.h"
#include "server/settings.h"

#include <stdlib.h>

/* ---- settings ---------------------------------------------------------------------------------------------------- */

static void get_settings(void *ctx, http_req *req) {
    app *a = ctx;
    settings_get(a->db, routes_reply_result, req);
}

static void put_settings(void *ctx, http_req *req) {
    app *a = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    settings_put(a->db, body, len, routes_reply_result, req);
}

/* ---- log --------------------------------------------------------------------------------------------------------- */

enum { LINES_DEFAULT = 200, LINES_MAX = 5000, TAIL_BYTES_MAX = 1024 * 1024, CRASHES_DEFAULT = 50 };

typedef struct log_request {
    http_req *req;
    char *path;
    int64_t lines;
    buf text;
    err why;
} log_request;

/* Where the last `lines` lines begin. */
static size_t tail_start(const char *data, size_t len, int64_t lines) {
    size_t from = len > TAIL_BYTES_MAX ? len - TAIL_BYTES_MAX : 0, i = len;
    while (i > from) {
        if (data[i - 1] == '\n' && i != len && lines-- == 1) return i;
        i--;
    }
    if (from == 0) return 0;
    while (i < len && data[i] != '\n') i++; /* not with half a line */
    return i < len ? i + 1 : len;
}

static void do_read_log(db_conn *c, void *arg) {
    (void)c;
    log_request *r = arg;
    file_map m;
    if (!path_exists(r->path) || !file_map_open(&m, r->path, &r->why)) return;
    size_t from = tail_start((const char *)m.data, m.size, r->lines);
    buf_append(&r->text, m.data + from, m.size - from);
    file_map_close(&m);
}

static void on_log_read(void *arg) {
    log_request *r = arg;
    if (r->why.code)
        routes_reply_invalid(r->req, &r->why);
    else
        http_reply(r->req, 200, "text/plain; charset=utf-8", buf_str(&r->text), r->text.len);
    buf_free(&r->text);
    free(r->path);
    free(r);
}

static void get_logs(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t lines = LINES_DEFAULT;
    if (!routes_query_int(req, "lines", &lines, 1, LINES_MAX)) return;
    log_request *r = mem_alloc(1, sizeof *r);
    *r = (log_request){.req = req, .path = path_join(a->cfg.data_dir, "mysti.log"), .lines = lines};
    buf_init(&r->text, TAIL_BYTES_MAX);
    db_submit(a->db, do_read_log, on_log_read, r);
}

/* ---- crashes ---------------------------------------------------------------------------------------------------- */

static void reply_crashes(void *ctx, const err *why, const char *json, size_t len) {
    if (why)
        routes_reply_invalid(ctx, why);
    else
        http_reply(ctx, 200, "application/json", json, len);
}

static void get_crashes(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t limit = CRASHES_DEFAULT, before = 0;
    if (routes_query_int(req, "limit", &limit, 1, CRASHES_KEPT) &&
        routes_query_int(req, "before", &before, 0, INT64_MAX))
        crashes_list(a->db, before, (int)limit, reply_crashes, req);
}

void routes_misc(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/v1/settings", get_settings, 0},
        {"PUT", "/v1/settings", put_settings, SETTINGS_BODY_MAX},
        {"GET", "/v1/logs", get_logs, 0},
        {"GET", "/v1/crashes", get_crashes, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
