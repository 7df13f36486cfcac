/* crashes.h - what is remembered of the workers' deaths: for people who look for the reason, and for reports.
 * Rows of the database; the last CRASHES_KEPT are kept. */
#ifndef MYSTI_SERVER_CRASHES_H
#define MYSTI_SERVER_CRASHES_H

#include "proc/proc.h"
#include "server/db.h"

enum { CRASHES_KEPT = 200 };

typedef struct crash {
    const char *worker; /* "sd", "llm" */
    int pid;
    const char *cause;      /* for people: "killed by signal 9 (SIGKILL)" */
    const proc_exit *how;   /* NULL: the process did not start at all */
    const char *model;      /* chosen at that time, or NULL */
    const char *jobs;       /* what it was working at: "j-12", or text requests "chatcmpl-1f,cmpl-2e"; "" for nothing */
    const char *last_lines; /* of its stderr, with the backtrace where there is one */
    int64_t started_ms;     /* wall time; see backtrace_name() */
} crash;

/* Copies everything, and looks up the names for the backtrace on the disk thread. A full disk is only a line in the
 * log: the death itself is dealt with elsewhere. Loop thread. */
void crashes_record(db *d, const crash *c);

/* The answer of GET /v1/crashes, newest first; `before` 0 begins with the newest. JSON is borrowed for the call. */
typedef void (*crashes_done)(void *ctx, const err *why, const char *json, size_t len);
void crashes_list(db *d, int64_t before, int limit, crashes_done done, void *ctx);

#endif
