/* http_req.h - one request and its answer, as a handler sees them. Loop thread only.
 *
 * Life of an http_req: it is born when the head of a request is complete, and dies
 *   - inside http_reply(), http_reply_error(), http_reply_err(), http_reply_end() or http_reply_abort(): each of them
 *     ends the exchange, and the pointer is void when it returns; or
 *   - when the client went away before that: behind the on_close callback, if one is set. Without one the request
 *     stays valid, what is written to it goes nowhere, and the handler must still end it as above.
 * Until its body is complete a request belongs to the server, which may refuse it or lose its client: whoever keeps the
 * pointer from on_headers on needs an on_close.
 * So a handler may answer at once or later, but answers each request exactly once, unless on_close told it not to.
 * Ending the request from inside on_close is allowed and does nothing.
 *
 * No callback (on_close, on_drain) is ever called from inside a call to these functions, only from the loop.
 * A client that closes its sending side while an answer is outstanding counts as gone. */
#ifndef MYSTI_NET_HTTP_REQ_H
#define MYSTI_NET_HTTP_REQ_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct http_req http_req;
typedef void http_handler(void *ctx, http_req *req);

/* ---- the request; everything returned is borrowed and lives as long as the request ---- */

const char *http_req_method(const http_req *req); /* "GET"; a HEAD says "HEAD" */
bool http_req_is_head(const http_req *req);
const char *http_req_path(const http_req *req);              /* decoded once, valid UTF-8, "." and ".." resolved */
const char *http_req_query_string(const http_req *req);      /* raw, without '?'; "" when there is none */
const char *http_req_query(http_req *req, const char *name); /* decoded value; NULL when not there */
const char *http_req_header(const http_req *req, const char *name); /* NULL when not there; case ignored */
const char *http_req_param(const http_req *req, const char *name);  /* from the route's pattern; NULL when not there */
const char *http_req_body(const http_req *req, size_t *len); /* NUL-terminated, never NULL; complete in the handler */
void http_req_drop_body(http_req *req);                      /* frees the body early: for answers that take long */
char *http_req_take_body(http_req *req, size_t *len);        /* hands it over: for work that may outlive the request */
const char *http_req_peer(const http_req *req);              /* "127.0.0.1" */
uv_loop_t *http_req_loop(const http_req *req);

/* Only in on_headers: how long the body may be (at most the server's max_body_cap). A longer one gets 413. */
void http_req_limit_body(http_req *req, size_t max_body);

/* Only for http_router: a parameter (copied), and the route found in on_headers (borrowed). */
void http_req_set_param(http_req *req, const char *name, const char *value, size_t len);
void http_req_set_route(http_req *req, const void *route);
const void *http_req_route(const http_req *req);

/* ---- the answer ---- */

/* Adds a header to the answer. False, and nothing added, when name or value is not fit for one (CR, LF, control
 * characters), the answer has begun, or all of them pass 16 KiB. Date, Connection, Content-Length, Transfer-Encoding
 * and nosniff are the server's own business. */
bool http_header_add(http_req *req, const char *name, const char *value);

/* A whole answer. The bytes are copied where the kernel does not take them at once. content_type NULL: none.
 * For HEAD the length is told and the body left out. */
void http_reply(http_req *req, int status, const char *content_type, const void *data, size_t len);

/* The error envelope {"error": {message, type, code, param}}. The type follows from the status
 * (invalid_request_error, authentication_error, permission_error, not_found_error, rate_limit_error, server_error).
 * code NULL: one that follows from the status ("not_found"). param may be NULL. */
void http_reply_error(http_req *req, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The same for an `err`: status by http_status_of(e->code), code by err_name(). */
void http_reply_err(http_req *req, const err *e);
int http_status_of(int code); /* err_code -> 400, 404, 409, 403, 413, 429, 503, 500 ... */

/* An answer in pieces: begin, write ..., end. Chunked, or closing the connection for HTTP/1.0. */
void http_reply_begin(http_req *req, int status, const char *content_type);

/* As http_reply_begin, for a body of known length: exactly `length` bytes must be written before http_reply_end()
 * (fewer abort the connection, more are dropped). */
void http_reply_begin_length(http_req *req, int status, const char *content_type, uint64_t length);

/* Copies what the kernel does not take at once. False when more than HTTP_HIGH_WATER bytes now wait: stop until
 * on_drain. (True for a client that is gone: its on_close comes.) */
bool http_reply_write(http_req *req, const void *data, size_t len);
void http_reply_end(http_req *req);

/* Cuts the connection, so that the client notices a broken answer. Before an answer began: the same. */
void http_reply_abort(http_req *req);

/* Cuts the connection without ending the request: on_close comes from the loop, as if the client had gone. */
void http_req_cut(http_req *req);

enum { HTTP_HIGH_WATER = 64 * 1024 };
size_t http_reply_queued(const http_req *req); /* bytes not yet accepted by the kernel */
bool http_reply_begun(const http_req *req);

/* fn is called once, when all bytes that wait were accepted by the kernel; to be set after http_reply_write() returned
 * false. NULL takes it back. */
void http_req_on_drain(http_req *req, http_handler *fn, void *ctx);

/* fn is called once if the client goes away, or the server closes, before the answer ended. NULL takes it back.
 * Set in on_headers it also covers the time in which the body arrives, and a body that is refused. */
void http_req_on_close(http_req *req, http_handler *fn, void *ctx);

const char *http_status_text(int status); /* "Not Found" */

#endif
