/* http_lines.h - splits a byte stream into lines of bounded length: newline-delimited JSON. */
#ifndef MYSTI_NET_HTTP_LINES_H
#define MYSTI_NET_HTTP_LINES_H

#include "base/buf.h"
#include "base/err.h"

typedef struct http_lines {
    buf rest; /* owned: the unfinished line */
    /* One line without its end ("\n" or "\r\n"), NUL-terminated, valid during the call; empty lines are skipped.
     * False stops the splitting: the rest of this feed is dropped. */
    bool (*on_line)(void *ctx, const char *line, size_t len);
    void *ctx;
} http_lines;

void http_lines_init(http_lines *l, size_t max_line, bool (*on_line)(void *ctx, const char *line, size_t len),
                     void *ctx);
void http_lines_free(http_lines *l);

/* ERR_TOO_LARGE when a line is longer than max_line, ERR_CANCELLED when on_line returned false. Do not free `l` from
 * inside on_line. */
bool http_lines_feed(http_lines *l, const char *data, size_t len, err *e);

/* The stream ended: a last line without its newline is delivered. */
bool http_lines_end(http_lines *l, err *e);

#endif
