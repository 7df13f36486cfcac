/* routes_static.c - the page's files and the pictures. */
#include "server/routes.h"

#include "base/path.h"
#include "base/str.h"
#include "net/http_file.h"
#include "server/uploads.h"

/* The one style that the page's lists bring along (Reka UI hides their scroll bars): allowed by its hash. */
#define LIST_STYLE "'sha256-60LHlRjW/B3CtzIoE/Lf1/NEDvko9efWMFaGVhHu/cs='"

/* The page loads nothing from elsewhere and has neither inline scripts nor inline styles. */
static const char page_policy[] =
    "default-src 'self'; script-src 'self'; style-src 'self' " LIST_STYLE "; img-src 'self' data: blob:; "
    "font-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

static void serve_picture(http_req *req, const char *dir) {
    http_header_add(req, "Content-Security-Policy", "default-src 'none'; sandbox");
    const http_file_opts opts = {.cache_control = "private, max-age=3600"};
    http_file_serve(req, dir, http_req_param(req, "path"), &opts);
}

static void get_output(void *ctx, http_req *req) {
    serve_picture(req, ((app *)ctx)->cfg.output_dir);
}

static void get_upload(void *ctx, http_req *req) {
    serve_picture(req, ((app *)ctx)->uploads->dir);
}

/* Programs that look for an API we don't have must get a 404, neither the page nor "not allowed here". */
static void no_route(void *ctx, http_req *req) {
    (void)ctx;
    http_reply_error(req, 404, NULL, NULL, "there is no route %.200s", http_req_path(req));
}

#define NO_ROUTES(prefix)                                                                                              \
    {"GET", prefix "/{path...}", no_route, 0}, {"POST", prefix "/{path...}", no_route, 0},                             \
        {"PUT", prefix "/{path...}", no_route, 0}, {"PATCH", prefix "/{path...}", no_route, 0},                        \
        {"DELETE", prefix "/{path...}", no_route, 0}, {                                                                \
        "OPTIONS", prefix "/{path...}", no_route, 0                                                                    \
    }

static void get_page(void *ctx, http_req *req) {
    app *a = ctx;
    const char *path = http_req_param(req, "path");
    http_header_add(req, "Content-Security-Policy", page_policy);
    http_header_add(req, "Referrer-Policy", "no-referrer");
    const http_file_opts opts = {.cache_control = str_starts(path, "assets/") ? HTTP_CACHE_IMMUTABLE : NULL,
                                 .fallback = "index.html"};
    http_file_serve(req, a->cfg.public_dir, path, &opts);
}

void routes_static(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/outputs/{path...}", get_output, 0},
        {"GET", "/v1/uploads/{path}", get_upload, 0},
        NO_ROUTES("/v1"),
        NO_ROUTES("/api"),
        NO_ROUTES("/sdapi"),
        NO_ROUTES("/internal"),
        {"GET", "/v1", no_route, 0},
        {"GET", "/{path...}", get_page, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
