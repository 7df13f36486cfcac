/* health.h - what a worker says about itself: GET /internal/health, both ends of it.
 * A plain value without pointers: copy it freely. */
#ifndef MYSTI_PROC_HEALTH_H
#define MYSTI_PROC_HEALTH_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

typedef enum worker_activity { WORKER_IDLE, WORKER_LOADING, WORKER_BUSY } worker_activity;

typedef struct worker_memory {
    char device[64];
    uint64_t total, free; /* bytes */
} worker_memory;

typedef struct worker_progress_info {
    char job[64];     /* "" for none */
    char phase[32];   /* "" for none */
    int step, steps;  /* 0 when the phase has no steps */
    int64_t stamp_ms; /* wall time of the last sign of progress; 0 before the first */
} worker_progress_info;

enum { WORKER_MEMORY_MAX = 8 };

typedef struct worker_health {
    bool ok;
    char service[32];
    char version[32];
    int pid;
    worker_activity state;
    char model[4096]; /* path; "" without a model */
    worker_progress_info progress;
    worker_memory memory[WORKER_MEMORY_MAX]; /* empty until the backend is initialised */
    size_t memory_count;
    uint64_t rss; /* bytes */
} worker_health;

const char *worker_activity_name(worker_activity a); /* "idle", "loading", "busy" */

/* Appends the JSON object. */
void worker_health_write(const worker_health *h, buf *out);

/* ERR_FORMAT or ERR_INVALID when it is not a health answer; unknown keys are ignored. */
bool worker_health_parse(const char *json, size_t len, worker_health *out, err *e);

#endif
