/* routes_models.c - the model index over HTTP: from memory, also with both workers down. */
#include "server/routes.h"

#include "base/str.h"
#include "server/ip_adapters.h"
#include "server/model_lists.h"

#include <stdlib.h>

enum { LIST_JSON_MAX = 64 * 1024 * 1024 };

static void reply_list(app *a, http_req *req) {
    buf out;
    buf_init(&out, LIST_JSON_MAX);
    models_write_list(a->models, &out);
    routes_reply_json(req, 200, &out);
}

static void get_models(void *ctx, http_req *req) {
    reply_list(ctx, req);
}

static void reply_type(app *a, http_req *req, const char *type) {
    buf out;
    buf_init(&out, LIST_JSON_MAX);
    model_list_write_document(a->models, type, &out);
    routes_reply_json(req, 200, &out);
}

static void get_loras(void *ctx, http_req *req) {
    reply_type(ctx, req, "lora");
}

static void get_upscalers(void *ctx, http_req *req) {
    reply_type(ctx, req, "upscaler");
}

static void get_controlnets(void *ctx, http_req *req) {
    reply_type(ctx, req, "controlnet");
}

static void get_ip_adapters(void *ctx, http_req *req) {
    app *a = ctx;
    buf out;
    buf_init(&out, LIST_JSON_MAX);
    ip_adapters_write_list(a->models, &out);
    routes_reply_json(req, 200, &out);
}

static void get_model(void *ctx, http_req *req) {
    app *a = ctx;
    err why = {0};
    const model_entry *m = models_find(a->models, http_req_param(req, "id"), &why);
    if (!m) {
        http_reply_error(req, http_status_of(why.code), why.code == ERR_NOT_FOUND ? "model_not_found" : "conflict",
                         "model", "%s", why.msg);
        return;
    }
    buf out;
    buf_init(&out, 64 * 1024);
    models_write_one(a->models, m, &out);
    routes_reply_json(req, 200, &out);
}

typedef struct refresh {
    app *a;
    http_req *req;
} refresh;

static void on_refreshed(void *ctx) {
    refresh *r = ctx;
    reply_list(r->a, r->req);
    free(r);
}

static void post_refresh(void *ctx, http_req *req) {
    refresh *r = mem_alloc(1, sizeof *r);
    *r = (refresh){ctx, req};
    models_refresh(r->a->models, on_refreshed, r);
}

void routes_models(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/v1/models", get_models, 0},           {"POST", "/v1/models/refresh", post_refresh, 0},
        {"GET", "/v1/models/{id...}", get_model, 0},    {"GET", "/v1/loras", get_loras, 0},
        {"GET", "/v1/upscalers", get_upscalers, 0},     {"GET", "/v1/controlnets", get_controlnets, 0},
        {"GET", "/v1/ip_adapters", get_ip_adapters, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
