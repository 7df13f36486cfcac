/* state.h - the worker's health record: written by the engine, read by the loop. Every function may be called from any
 * thread. */
#ifndef MYSTI_WORKER_STATE_H
#define MYSTI_WORKER_STATE_H

#include "proc/health.h"

#include <stdatomic.h>
#include <uv.h>

typedef struct worker_state {
    uv_mutex_t lock;                /* guards h */
    worker_health h;                /* all but the stamp */
    _Atomic int_least64_t stamp_ms; /* apart, so that a sign of life costs no lock */
} worker_state;

void worker_state_init(worker_state *s, const char *service, const char *version);
void worker_state_free(worker_state *s);

void worker_state_alive(worker_state *s); /* stamps */
void worker_state_activity(worker_state *s, worker_activity a);
void worker_state_job(worker_state *s, const char *id); /* a new one begins: no phase, no steps; "" for none */
void worker_state_progress(worker_state *s, const char *phase, int step, int steps); /* stamps */
void worker_state_model(worker_state *s, const char *path);
void worker_state_memory(worker_state *s, const worker_memory *m, size_t count);

/* Appends the health answer, with the process's resident memory as it is now. `late`: the engine does not take up its
 * jobs, so it is not idle, whatever it said last. */
void worker_state_write(worker_state *s, bool late, buf *out);

#endif
