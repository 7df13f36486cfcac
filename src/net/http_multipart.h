/* http_multipart.h - multipart/form-data (RFC 7578) over a complete body. */
#ifndef MYSTI_NET_HTTP_MULTIPART_H
#define MYSTI_NET_HTTP_MULTIPART_H

#include "base/err.h"

#include <stddef.h>

typedef struct http_part {
    const char *name;         /* never NULL */
    const char *filename;     /* NULL for a plain field; untrusted, do not use as a path */
    const char *content_type; /* NULL when not given */
    const char *data;         /* borrowed from the body: not NUL-terminated */
    size_t len;
} http_part;

typedef struct http_multipart http_multipart;

enum { HTTP_PARTS_MAX = 64 };

/* content_type: the request's header, with the boundary. Borrows the body. NULL: ERR_UNSUPPORTED when it is not
 * multipart/form-data, ERR_FORMAT when malformed, ERR_TOO_LARGE beyond HTTP_PARTS_MAX parts or 8 KiB of part head. */
http_multipart *http_multipart_parse(const char *content_type, const char *body, size_t len, err *e);
void http_multipart_free(http_multipart *m);

size_t http_multipart_count(const http_multipart *m);
const http_part *http_multipart_part(const http_multipart *m, size_t index);
const http_part *http_multipart_find(const http_multipart *m, const char *name); /* the first one, or NULL */

/* The part's data as a string, to be freed; NULL when there is no such part or it has a NUL or is not UTF-8. */
char *http_multipart_text(const http_multipart *m, const char *name);

#endif
