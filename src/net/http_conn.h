/* http_conn.h - private to http_server.c and http_req.c: a connection and the exchange on it.
 *
 * A connection lives until its handles are closed and its request, if any, has ended: a handler may hold the request
 * longer than the socket lives. Whoever finds the connection broken calls conn_close(); the request's on_close is
 * called from the close callback, and so always from the loop. */
#ifndef MYSTI_NET_HTTP_CONN_H
#define MYSTI_NET_HTTP_CONN_H

#include "net/http_parse.h"
#include "net/http_server.h"
#include "net/http_uri.h"

typedef enum conn_phase {
    CONN_IDLE,   /* between requests */
    CONN_HEAD,   /* a head is arriving */
    CONN_BODY,   /* the head is there, the body is arriving */
    CONN_ANSWER, /* the handler has the whole request */
    CONN_FLUSH,  /* the answer is complete and waits to be taken by the kernel */
    CONN_LINGER, /* the last answer is out; input is dropped until the client closes too */
} conn_phase;

typedef struct http_conn {
    http_server *srv; /* void once the handles are closed */
    uv_loop_t *loop;
    struct http_conn *prev, *next; /* in srv->conns */
    uv_tcp_t tcp;
    uv_timer_t timer; /* one deadline at a time: see conn_phase */
    uv_shutdown_t shutdown;
    http_parser parser;
    http_req *req; /* the exchange under way, or NULL */
    buf in;        /* bytes of the next requests, read during an answer */
    conn_phase phase;
    uint8_t open_handles;
    bool closing, closed; /* conn_close() was called; the handles are gone */
    bool eof, reading, pumping;
    bool last; /* no request after this one */
    uint64_t body_start_ms;
    uint64_t written;       /* bytes handed to conn_write() */
    uint64_t taken_at_tick; /* bytes the kernel had taken when the send timer last looked */
} http_conn;

/* How the answer's end is marked on the wire. */
typedef enum reply_framing { REPLY_NOT_BEGUN, REPLY_LENGTH, REPLY_CHUNKED, REPLY_UNTIL_CLOSE } reply_framing;

/* A name and its value, in a list: query values and route parameters. */
typedef struct http_pair {
    struct http_pair *next;
    char *value; /* owned; NULL when the query has no such name */
    char name[]; /* NUL-terminated */
} http_pair;

struct http_req {
    http_conn *conn;
    http_uri uri;
    buf body;
    buf extra; /* header lines of the answer */
    http_pair *params, *queries;
    char *peer;
    const void *route;
    http_handler *on_close, *on_drain;
    void *close_ctx, *drain_ctx;
    size_t max_body;
    uint64_t remaining; /* REPLY_LENGTH: body bytes still to be written */
    reply_framing framing;
    bool is_head, is_1_0;
    bool complete;  /* the whole request was read */
    bool handed;    /* the handler has it, and will end it */
    bool no_body;   /* the answer has none: HEAD, 204, 304 */
    bool notifying; /* on_close is running: the end of the request is on its way already */
};

/* http_server.c */
void conn_write(http_conn *c, uv_buf_t *bufs, unsigned count); /* copies what the kernel does not take at once */
void conn_close(http_conn *c);
void conn_answered(http_conn *c, bool keep_alive); /* the exchange is over, c->req is NULL */
void conn_unref(http_conn *c);                     /* frees c when closed and without a request */

/* http_req.c */
http_req *req_new(http_conn *c);
void req_free(http_req *req);
bool req_read_head(http_req *req, err *e); /* takes the target from the parser */
void req_notify_close(http_req *req);      /* calls on_close; frees the request if there was one */

#endif
