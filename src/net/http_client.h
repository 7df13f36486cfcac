/* http_client.h - HTTP/1.1 calls to one address (a worker on loopback). Loop thread only.
 *
 * Connections are kept and used again. A call on a kept connection that turns out dead before any byte of the answer
 * is sent once more on a fresh one, if its method is idempotent (GET, HEAD, PUT, DELETE, OPTIONS) or nothing was sent.
 *
 * Life of an http_call: from http_client_send() until on_done has returned, or until http_call_abort() returns. */
#ifndef MYSTI_NET_HTTP_CLIENT_H
#define MYSTI_NET_HTTP_CLIENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

typedef struct http_client http_client;
typedef struct http_call http_call;

typedef struct http_header {
    const char *name, *value;
} http_header;

typedef struct http_call_opts {
    const char *method;         /* "GET" when NULL */
    const char *path;           /* the target as it stands on the wire, query included */
    const http_header *headers; /* beside Host and Content-Length; copied */
    size_t header_count;
    const void *body; /* copied; for JSON add Content-Type yourself */
    size_t body_len;
    int connect_timeout_ms; /* 2 s when 0 */
    int idle_timeout_ms;    /* longest wait for the next byte of the answer; 0: none */

    /* All optional; none is called from inside a function of this header.
     * on_headers: from here on http_call_status() and, until on_done, http_call_header() are valid. Interim (1xx)
     * answers are skipped.
     * on_data: a piece of the body, valid during the call.
     * on_done: the end; `e` is NULL when the answer came whole, else ERR_IO (refused, broken off), ERR_TIMEOUT or
     * ERR_FORMAT. A status of 500 is an answer, not an error. */
    void (*on_headers)(void *ctx, http_call *call);
    void (*on_data)(void *ctx, const char *data, size_t len);
    void (*on_done)(void *ctx, const err *e);
    void *ctx;
} http_call_opts;

/* NULL when ip is not an address. Connects when there is something to send. */
http_client *http_client_new(uv_loop_t *loop, const char *ip, int port);

/* Aborts all calls (their callbacks are not called). The memory goes once the loop has closed the sockets. */
void http_client_close(http_client *c);

/* Starts a call. NULL only when the options are unfit (a header with CR or LF, a bad method or path). */
http_call *http_client_send(http_client *c, const http_call_opts *opts, err *e);

int http_call_status(const http_call *call);
const char *http_call_header(const http_call *call, const char *name); /* NULL when not there */

/* Backpressure: stops and continues reading. What was read already (at most 64 KiB) still comes after a pause. The idle
 * timeout does not run while paused. */
void http_call_pause(http_call *call);
void http_call_resume(http_call *call);

/* Closes the connection: the peer notices at once. No callback is called afterwards. */
void http_call_abort(http_call *call);

/* A whole answer of bounded size, for calls that are not streams. `body` is NUL-terminated and valid during the call;
 * with an error, status is 0. The callbacks in opts are not used; a body past max_body is ERR_TOO_LARGE. */
typedef void http_fetch_fn(void *ctx, int status, const char *body, size_t len, const err *e);
http_call *http_client_fetch(http_client *c, const http_call_opts *opts, size_t max_body, http_fetch_fn *fn, void *ctx,
                             err *e);

#endif
