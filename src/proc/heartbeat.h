/* heartbeat.h - asks one worker for its health, again and again.
 *
 * Once a second, one question at a time; an answer that takes longer than a second is a miss. Until the first answer
 * it asks every 15 ms, so that a fresh worker is noticed at once, and nothing counts as a miss. Loop thread only. */
#ifndef MYSTI_PROC_HEARTBEAT_H
#define MYSTI_PROC_HEARTBEAT_H

#include "proc/health.h"

#include <uv.h>

enum { HEARTBEAT_INTERVAL_MS = 1000, HEARTBEAT_TIMEOUT_MS = 1000, HEARTBEAT_STARTING_MS = 15 };

typedef struct heartbeat heartbeat;

typedef struct heartbeat_options {
    int port;          /* on 127.0.0.1 */
    const char *token; /* for X-Mysti-Token; copied */
    /* A health answer; `stalled`: its work stands still for too long (progress.h). */
    void (*on_ok)(void *ctx, const worker_health *h, bool stalled);
    /* No answer within a second, or not a proper one; `why` says which. Not called before the first answer. */
    void (*on_miss)(void *ctx, const err *why);
    void *ctx;
} heartbeat_options;

/* Begins to ask. Both callbacks may call heartbeat_stop() and heartbeat_close(). */
heartbeat *heartbeat_open(uv_loop_t *loop, const heartbeat_options *o);

/* A new process was started: asks quickly until it answers. `token` as above; NULL keeps the old one. */
void heartbeat_restart(heartbeat *hb, const char *token);

void heartbeat_stop(heartbeat *hb);  /* no questions and no callbacks until heartbeat_restart() */
void heartbeat_now(heartbeat *hb);   /* asks as soon as possible, out of turn */
void heartbeat_close(heartbeat *hb); /* NULL is fine */

/* The last answer since the last restart, or NULL. Valid until the next callback. */
const worker_health *heartbeat_last(const heartbeat *hb);

#endif
