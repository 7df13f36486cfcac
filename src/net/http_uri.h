/* http_uri.h - request targets: "/a%20b/../c?x=1+2" -> path "/c", query "x=1+2".
 * Pure functions over bytes from outside. */
#ifndef MYSTI_NET_HTTP_URI_H
#define MYSTI_NET_HTTP_URI_H

#include "base/buf.h"
#include "base/err.h"

typedef struct http_uri {
    char *path;      /* owned; decoded once, UTF-8, no NUL or control characters, no "." and ".." parts; or "*" */
    char *query;     /* owned; raw text behind '?', "" when there is none */
    char *authority; /* owned; host[:port] of an absolute target, else NULL */
} http_uri;

/* ERR_INVALID when the target is malformed, or climbs above "/". %2F is a slash like any other. */
bool http_uri_parse(http_uri *u, const char *target, size_t len, err *e);
void http_uri_free(http_uri *u);

/* The decoded value of the first `name` in a raw query, to be freed; "" for a name without '='; NULL when it is not
 * there or is not text. */
char *http_uri_query(const char *query, const char *name);

/* Appends the decoded bytes. '+' becomes a space when `form`. False for a bad %XX or NUL, or when `out` is full. */
bool http_uri_decode(buf *out, const char *s, size_t len, bool form);

/* Appends s with everything but unreserved characters (and '/' when `keep_slash`) as %XX. */
bool http_uri_encode(buf *out, const char *s, bool keep_slash);

#endif
