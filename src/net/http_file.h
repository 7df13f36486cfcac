/* http_file.h - files below a folder, streamed in pieces from libuv's thread pool: memory does not grow with the file.
 *
 * ETag and Last-Modified from size and time, 304 (If-Modified-Since only with the very date we gave), one range (206,
 * 416; several ranges get the whole file), HEAD,
 * content type by extension. Folders, and names that leave the root, are 404. */
#ifndef MYSTI_NET_HTTP_FILE_H
#define MYSTI_NET_HTTP_FILE_H

#include "net/http_req.h"

typedef struct http_file_opts { /* NULL, or NULL in a field: the default */
    const char *cache_control;  /* "no-cache": ask again each time. Hashed names: HTTP_CACHE_IMMUTABLE */
    const char *fallback;       /* served instead of a missing name without extension, e.g. "index.html" (SPA) */
    const char *disposition;    /* Content-Disposition, e.g. "attachment" */
} http_file_opts;

#define HTTP_CACHE_IMMUTABLE "public, max-age=31536000, immutable"

/* Answers the request (GET or HEAD) with root/name; "" is "index.html". Takes over the request. Strings are copied. */
void http_file_serve(http_req *req, const char *root, const char *name, const http_file_opts *opts);

/* By extension; "application/octet-stream" when unknown. */
const char *http_file_type(const char *name);

#endif
