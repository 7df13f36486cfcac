/* http_router.h - from method and path to a handler, by a table.
 *
 * Patterns: "/v1/jobs/{id}/events" - a part in braces matches one part of the path, and http_req_param(req, "id") has
 * it decoded; "/outputs/{path...}" matches the rest, slashes included (also an empty rest). A part given as text beats
 * a parameter, a parameter beats a rest. A trailing slash is a different path.
 * No pattern: 404. Another method only: 405 with Allow. HEAD goes to GET; OPTIONS is answered with Allow, unless a
 * route takes it. */
#ifndef MYSTI_NET_HTTP_ROUTER_H
#define MYSTI_NET_HTTP_ROUTER_H

#include "net/http_req.h"

typedef struct http_route {
    const char *method; /* "GET" */
    const char *pattern;
    http_handler *handler;
    size_t max_body; /* for this route; 0: the server's default */
} http_route;

typedef struct http_router http_router;

/* The table is borrowed. `ctx` goes to the handlers. A malformed pattern aborts: it is a mistake in the program. */
http_router *http_router_new(const http_route *routes, size_t count, void *ctx);
void http_router_free(http_router *r);

/* For http_server_opts with ctx = the router, or to be called from your own: the first one sets the body limit and
 * answers 404, 405 and OPTIONS before any body is read; the second one calls the handler. */
void http_router_on_headers(void *router, http_req *req);
void http_router_handle(void *router, http_req *req);

#endif
