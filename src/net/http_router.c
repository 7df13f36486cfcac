/* http_router.c - see http_router.h. */
#include "net/http_router.h"
#include "base/buf.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct http_router {
    const http_route *routes;
    size_t count;
    void *ctx;
};

typedef enum part_kind { PART_TEXT, PART_PARAM, PART_REST } part_kind;

/* One part of a pattern, as it stands in the pattern's text. */
typedef struct part {
    part_kind kind;
    const char *text; /* the text, or the parameter's name */
    size_t len;
    const char *next; /* the pattern behind it: "" or "/..." */
} part;

/* `at` stands on a '/'. */
static part read_part(const char *at) {
    const char *s = at + 1;
    size_t n = strcspn(s, "/");
    part p = {.kind = PART_TEXT, .text = s, .len = n, .next = s + n};
    if (n < 2 || s[0] != '{') return p;
    p.text++;
    p.len -= 2;
    p.kind = p.len > 3 && strncmp(p.text + p.len - 3, "...", 3) == 0 ? PART_REST : PART_PARAM;
    if (p.kind == PART_REST) p.len -= 3;
    return p;
}

static void check_pattern(const char *pattern) {
    const char *at = pattern;
    while (*at == '/') {
        part p = read_part(at);
        at = p.next;
        bool braces = memchr(p.text, '{', p.len) || memchr(p.text, '}', p.len);
        if (braces || (p.kind != PART_TEXT && !p.len) || (p.kind == PART_REST && *at)) break;
    }
    if (*at || pattern[0] != '/') {
        fprintf(stderr, "malformed route '%s'\n", pattern);
        abort();
    }
}

http_router *http_router_new(const http_route *routes, size_t count, void *ctx) {
    for (size_t i = 0; i < count; i++) check_pattern(routes[i].pattern);
    http_router *r = mem_alloc(1, sizeof *r);
    *r = (http_router){.routes = routes, .count = count, .ctx = ctx};
    return r;
}

void http_router_free(http_router *r) {
    free(r);
}

/* Whether the pattern matches; with `req`, its parameters are set. */
static bool matches(const char *pattern, const char *path, http_req *req) {
    while (*pattern == '/' && *path == '/') {
        part p = read_part(pattern);
        size_t n = p.kind == PART_REST ? strlen(path + 1) : strcspn(path + 1, "/");
        if (p.kind == PART_TEXT && (n != p.len || memcmp(path + 1, p.text, n) != 0)) return false;
        if (p.kind == PART_PARAM && n == 0) return false;
        if (p.kind != PART_TEXT && req) {
            char *name = str_ndup(p.text, p.len);
            http_req_set_param(req, name, path + 1, n);
            free(name);
        }
        pattern = p.next;
        path += 1 + n;
    }
    return !*pattern && !*path;
}

/* Of two patterns that match the same path: the one that first is more exact. */
static bool is_more_exact(const char *a, const char *b) {
    while (*a == '/' && *b == '/') {
        part pa = read_part(a), pb = read_part(b);
        if (pa.kind != pb.kind) return pa.kind < pb.kind;
        a = pa.next;
        b = pb.next;
    }
    return false;
}

/* The most exact pattern for a path, or NULL. Only then the method counts, so that a wrong method on a known path is
 * 405 and not taken by a "{path...}" for all. */
static const char *best_pattern(const http_router *r, const char *path) {
    const char *best = NULL;
    for (size_t i = 0; i < r->count; i++) {
        const char *pattern = r->routes[i].pattern;
        if (matches(pattern, path, NULL) && (!best || is_more_exact(pattern, best))) best = pattern;
    }
    return best;
}

static const http_route *find_method(const http_router *r, const char *pattern, const char *method) {
    for (size_t i = 0; i < r->count; i++)
        if (str_eq(r->routes[i].pattern, pattern) && str_eq(r->routes[i].method, method)) return &r->routes[i];
    return NULL;
}

static const http_route *find_route(const http_router *r, const char *pattern, const http_req *req) {
    const http_route *route = find_method(r, pattern, http_req_method(req));
    return !route && http_req_is_head(req) ? find_method(r, pattern, "GET") : route;
}

static void add_allow(const http_router *r, const char *pattern, http_req *req) {
    buf allow;
    buf_init(&allow, 200);
    for (size_t i = 0; i < r->count; i++)
        if (str_eq(r->routes[i].pattern, pattern))
            buf_printf(&allow, "%s%s, ", r->routes[i].method, str_eq(r->routes[i].method, "GET") ? ", HEAD" : "");
    if (!find_method(r, pattern, "OPTIONS")) buf_puts(&allow, "OPTIONS");
    http_header_add(req, "Allow", buf_str(&allow));
    buf_free(&allow);
}

void http_router_on_headers(void *router, http_req *req) {
    const http_router *r = router;
    const char *path = http_req_path(req);
    const char *pattern = best_pattern(r, path);
    const http_route *route = pattern ? find_route(r, pattern, req) : NULL;
    if (route) {
        matches(pattern, path, req);
        http_req_set_route(req, route);
        if (route->max_body) http_req_limit_body(req, route->max_body);
    } else if (!pattern && !str_eq(path, "*")) {
        http_reply_error(req, 404, NULL, NULL, "no such path: %s", path);
    } else {
        if (pattern) add_allow(r, pattern, req);
        if (str_eq(http_req_method(req), "OPTIONS"))
            http_reply(req, 204, NULL, NULL, 0);
        else
            http_reply_error(req, 405, NULL, NULL, "%s is not allowed here", http_req_method(req));
    }
}

void http_router_handle(void *router, http_req *req) {
    const http_router *r = router;
    const http_route *route = http_req_route(req);
    if (route)
        route->handler(r->ctx, req);
    else
        http_reply_error(req, 500, NULL, NULL, "the request was not routed");
}
