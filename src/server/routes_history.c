/* routes_history.c - the gallery over HTTP. */
#include "server/routes.h"

#include "base/str.h"
#include "server/events.h"
#include "server/history.h"

#include <stdlib.h>

enum { LIST_DEFAULT = 50 };

static void get_images(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t limit = LIST_DEFAULT, before = 0;
    if (routes_query_int(req, "limit", &limit, 1, 200) && routes_query_int(req, "before", &before, 0, INT64_MAX))
        history_list(a->history, before, (int)limit, http_req_query(req, "q"), routes_reply_result, req);
}

/* 0 when it was answered with 404. */
static int64_t picture_of(http_req *req) {
    const char *text = http_req_param(req, "id");
    int64_t id;
    if (str_to_i64(text, &id) && id > 0) return id;
    http_reply_error(req, 404, NULL, "id", "there is no picture '%.60s'", text);
    return 0;
}

static void get_image(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t id = picture_of(req);
    if (id) history_get(a->history, id, routes_reply_result, req);
}

typedef struct deletion {
    app *a;
    http_req *req;
} deletion;

static void on_deleted(void *ctx, const err *why, const char *json, size_t len) {
    deletion *d = ctx;
    if (why) {
        routes_reply_invalid(d->req, why);
    } else {
        events_publish(d->a->events, "image_deleted", NULL, json, len, 0);
        http_reply(d->req, 200, "application/json", "{}", 2);
    }
    free(d);
}

static void delete_image(void *ctx, http_req *req) {
    app *a = ctx;
    int64_t id = picture_of(req);
    if (!id) return;
    deletion *d = mem_alloc(1, sizeof *d);
    *d = (deletion){a, req};
    history_delete(a->history, id, on_deleted, d);
}

void routes_history(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/v1/history/images", get_images, 0},
        {"GET", "/v1/history/images/{id}", get_image, 0},
        {"DELETE", "/v1/history/images/{id}", delete_image, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
