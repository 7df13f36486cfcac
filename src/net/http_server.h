/* http_server.h - an HTTP/1.1 server on a libuv loop. Loop thread only.
 *
 * Keep-alive, pipelining (answered in order, one at a time), chunked both ways, Expect: 100-continue, HEAD.
 * Request bodies are buffered within a limit; answers stream with backpressure. What cannot be framed without doubt
 * is refused, and the connection closed behind the answer. Read buffers belong to the server, not to connections: an
 * idle event stream costs about 3 KiB. */
#ifndef MYSTI_NET_HTTP_SERVER_H
#define MYSTI_NET_HTTP_SERVER_H

#include "net/http_req.h"

typedef struct http_server http_server;

typedef struct http_server_opts { /* 0 or NULL: the default */
    const char *ip;               /* "127.0.0.1"; IPv6 is fine */
    int port;                     /* a free one, see http_server_port() */
    size_t max_header;            /* 64 KiB */
    size_t max_body;              /* 1 MiB, for requests whose limit on_headers does not set */
    size_t max_body_cap;          /* 256 MiB: what on_headers may allow at most */
    int header_timeout_ms;        /* 10 s, from the first byte of a request to the end of its head */
    int body_timeout_ms;          /* 30 s without a byte, or 30 s and 1 ms per byte in all */
    int keep_alive_ms;            /* 75 s idle between requests */
    int send_timeout_ms;          /* 60 s in which the client takes not one byte of what waits for it */
    int max_connections;          /* 4096; one more gets 503 */
    http_handler *on_headers;     /* may be NULL: the head is there. May set the body limit, or answer already */
    http_handler *handler;        /* the request is complete */
    void *ctx;                    /* for both */
} http_server_opts;

/* Listens, or NULL: ERR_CONFLICT when the port is taken, ERR_DENIED when not allowed. */
http_server *http_server_listen(uv_loop_t *loop, const http_server_opts *opts, err *e);

int http_server_port(const http_server *srv);
int http_server_connections(const http_server *srv);

/* Stops accepting and closes idle connections at once; exchanges under way get grace_ms, then they are cut (their
 * on_close is called). `done` (may be NULL) is called when all is closed; the server is freed behind it. */
void http_server_close(http_server *srv, int grace_ms, void (*done)(void *ctx), void *ctx);

#endif
