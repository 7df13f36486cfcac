/* recovery.h - what each worker had loaded, so that a fresh process (or a fresh server) gets it again.
 *
 * One row per worker ("sd", "llm") with the JSON of the last load that the worker *confirmed*. */
#ifndef MYSTI_SERVER_RECOVERY_H
#define MYSTI_SERVER_RECOVERY_H

#include "server/db.h"

/* On the loop thread, once the row is on the disk or could not be written. */
typedef void (*recovery_done)(void *ctx, const err *why /* NULL: saved */);

/* The saved request, to be freed, or NULL when there is none. Blocks: for the start of the program. */
char *recovery_get(db *d, const char *worker, err *e);

/* `json` is copied. A failure is told to `done`, or logged where that is NULL. */
void recovery_set(db *d, const char *worker, const char *json, recovery_done done, void *ctx);
void recovery_clear(db *d, const char *worker, recovery_done done, void *ctx);

#endif
