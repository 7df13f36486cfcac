/* http_sse.h - server-sent events (text/event-stream) over a streamed answer.
 *
 * Life of an http_sse: from http_sse_begin() until http_sse_end() returns, or until on_close has returned, when the
 * client is gone or read too slowly. Then neither the stream nor the request may be touched. on_close is only called
 * from the loop, so a list of streams can be walked while sending. */
#ifndef MYSTI_NET_HTTP_SSE_H
#define MYSTI_NET_HTTP_SSE_H

#include "base/buf.h"
#include "net/http_req.h"

typedef struct http_sse http_sse;

typedef struct http_sse_opts { /* NULL, or 0 in a field: the default */
    size_t max_queue;          /* 256 KiB: a reader with more than this waiting for it is disconnected */
    int heartbeat_ms;          /* 15 s: a comment line when nothing was sent for so long */
    int retry_ms;              /* 2 s: how long the browser waits before it connects again */
} http_sse_opts;

/* Begins the answer (200, no-cache). Takes over the request, its on_close and on_drain included. NULL, and the
 * request ended, for HEAD. on_close may be NULL. */
http_sse *http_sse_begin(http_req *req, const http_sse_opts *opts, void (*on_close)(void *ctx, http_sse *s), void *ctx);

/* id and event may be NULL; data may have several lines. False when the reader is too slow or gone: on_close comes. */
bool http_sse_send(http_sse *s, const char *id, const char *event, const char *data);

/* The same in two steps, for many readers: format once, send to each. */
void http_sse_format(buf *out, const char *id, const char *event, const char *data);
bool http_sse_send_text(http_sse *s, const char *text, size_t len);

size_t http_sse_queued(const http_sse *s);
void http_sse_end(http_sse *s); /* ends the answer properly; on_close is not called */

#endif
