/* http_parse.h - bytes -> HTTP/1.x messages, strictly: llhttp plus the limits and refusals it leaves to us.
 *
 * One parser reads one message after the other from a connection. It stops behind each message, so that the bytes of
 * the next (pipelined) one stay with the caller until this one is answered. Owns the text of the head. */
#ifndef MYSTI_NET_HTTP_PARSE_H
#define MYSTI_NET_HTTP_PARSE_H

#include "base/buf.h"
#include "base/err.h"

#include <llhttp.h>
#include <stdint.h>

typedef enum http_kind { HTTP_KIND_REQUEST, HTTP_KIND_RESPONSE } http_kind;

/* Offsets into the head's text: it moves while it grows. */
typedef struct http_field_at {
    uint32_t name, value, end; /* end: behind the value's NUL */
} http_field_at;

typedef struct http_parser http_parser; /* keep_alive, status, why: to be read; the rest is private */

/* A piece of the body, chunking removed; never empty. False refuses the message: call http_parse_refuse() first. */
typedef bool http_parse_body_fn(void *ctx, const char *data, size_t len);

struct http_parser {
    llhttp_t ll;
    http_parse_body_fn *on_body;
    void *ctx;
    buf head; /* owned, NUL-separated: target, names, values */
    uint32_t target_end;
    http_field_at *fields; /* owned */
    uint16_t field_count, field_cap;
    uint32_t max_head;
    uint32_t wire; /* bytes of head, chunk extensions and trailers so far */
    uint8_t scan;  /* where the scan of the raw head stands */
    char first;    /* first byte of the message, 0 before it */
    bool no_body;  /* set by the caller for the answer to a HEAD */
    bool head_done, complete, keep_alive;
    int status; /* for the peer, when refused: 400, 413, 431, 501, 505 */
    err why;
};

typedef enum http_parse_result {
    HTTP_PARSE_MORE, /* all bytes used, the message goes on */
    HTTP_PARSE_HEAD, /* the head is complete: look at it, then feed the rest (also when there is none) */
    HTTP_PARSE_DONE, /* the message is complete; unused bytes belong to the next one */
    HTTP_PARSE_BAD,  /* p->status and p->why say why; the connection is beyond use */
} http_parse_result;

/* `max_head` bounds the head (ERR_TOO_LARGE, 431), counted in bytes on the wire. */
void http_parse_init(http_parser *p, http_kind kind, size_t max_head, http_parse_body_fn *on_body, void *ctx);
void http_parse_free(http_parser *p);

/* Feeds bytes; *used tells how many were taken. After HTTP_PARSE_DONE call http_parse_next() before feeding again. */
http_parse_result http_parse_feed(http_parser *p, const char *data, size_t len, size_t *used);

/* The peer will send no more: HTTP_PARSE_DONE when that ends the message (a response without length). */
http_parse_result http_parse_eof(http_parser *p);

/* Forgets the message and gives back the memory of its head. */
void http_parse_next(http_parser *p);

/* Ends the message: the status to answer with and the reason. Always returns false. */
bool http_parse_refuse(http_parser *p, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Valid from HTTP_PARSE_HEAD until http_parse_next(). */
const char *http_parse_method(const http_parser *p); /* "GET" */
const char *http_parse_target(const http_parser *p);
const char *http_parse_header(const http_parser *p, const char *name); /* the first one, or NULL */
int http_parse_status(const http_parser *p);                           /* of a response */
bool http_parse_is_1_0(const http_parser *p);
bool http_parse_has_body(const http_parser *p);   /* of a request: more than nothing will follow the head */
uint64_t http_parse_length(const http_parser *p); /* Content-Length, 0 when not given */

/* Fit to stand in a header: a token / text without control characters. False for NULL. */
bool http_is_field_name(const char *s);
bool http_is_field_value(const char *s);

/* True when a comma-separated header has `token`, ASCII case ignored. */
bool http_has_token(const char *value, const char *token);

#endif
