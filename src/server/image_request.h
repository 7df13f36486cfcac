/* image_request.h - from the body of a request to a job in the queue.
 *
 * The body (up to 72 MB, with an image inside) is parsed, checked and its image stored on the disk thread; then, on the
 * loop, its model is found and the job submitted. JSON or multipart/form-data. Knows no request: the body is handed
 * over, and the caller may lose interest. */
#ifndef MYSTI_SERVER_IMAGE_REQUEST_H
#define MYSTI_SERVER_IMAGE_REQUEST_H

#include "server/app.h"
#include "server/jobs.h"

enum { IMAGE_REQUEST_BODY_MAX = 72 * 1024 * 1024 };

enum image_request_flags {
    IMAGE_REQUEST_STRICT = 1,     /* unknown keys are errors; `type` says what it is */
    IMAGE_REQUEST_NEEDS_INIT = 2, /* image to image */
    IMAGE_REQUEST_UPSCALE = 4,    /* an upscale, also without a `type` */
    IMAGE_REQUEST_EDIT = 8,       /* OpenAI's: without a mask, the picture's own transparency is one */
    IMAGE_REQUEST_VARIATION = 16, /* OpenAI's: needs no prompt */
};

/* How it went. With a refusal, `code` is what clients see ("model_not_found"); NULL: by why.code. */
typedef struct image_request_result {
    err why;
    const char *code;
    const job *job; /* NULL when refused; borrowed during the call */
    bool as_url;    /* response_format */
} image_request_result;

typedef void (*image_request_done)(void *ctx, const image_request_result *r);

/* `body` is taken over; `content_type` may be NULL (JSON). */
void image_request_submit(app *a, char *body, size_t len, const char *content_type, unsigned flags,
                          image_request_done done, void *ctx);

#endif
