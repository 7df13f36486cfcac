/* image_answer.h - the answer of the synchronous image routes: finished files as base64 inside JSON, in pieces.
 *
 * A picture may have 30 MB and dozens of clients may wait: each answer holds one 48 KiB piece of one file at a time and
 * goes on when the client has taken it. Files are read by libuv's thread pool, as http_file does. */
#ifndef MYSTI_SERVER_IMAGE_ANSWER_H
#define MYSTI_SERVER_IMAGE_ANSWER_H

#include "net/http_req.h"
#include "server/job.h"

/* Takes over the request (its on_close and on_drain included). `j` is done; it is borrowed during the call. */
void image_answer_start(http_req *req, const char *output_dir, const job *j, bool as_url);

#endif
