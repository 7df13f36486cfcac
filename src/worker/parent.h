/* parent.h - a worker's tie to the server that started it: stdin and the token. Loop thread only. */
#ifndef MYSTI_WORKER_PARENT_H
#define MYSTI_WORKER_PARENT_H

#include "base/err.h"

#include <stddef.h>
#include <uv.h>

typedef struct parent {
    uv_pipe_t in;
    bool watching;
    char token[256]; /* "" while it is not known: nothing is allowed */
    size_t token_len;
    bool token_complete;
    char chunk[256];
    void (*on_gone)(void *ctx); /* EOF on stdin */
    void *ctx;
} parent;

/* Takes the token from MYSTI_TOKEN (and wipes it there), or else waits for it as the first line of stdin. Watches stdin
 * if it is a pipe. False when `parent_pid` (0: unknown) is dead, or there is no way to a token. */
bool parent_tie(parent *p, uv_loop_t *loop, int parent_pid, void (*on_gone)(void *ctx), void *ctx, err *e);

/* Takes the same time for every wrong token of one length. `given` may be NULL. */
bool parent_token_is(const parent *p, const char *given);

void parent_close(parent *p);

#endif
