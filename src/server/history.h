/* history.h - the pictures that were made: a table, a full-text index and the files in the output folder.
 *
 * A picture is recorded once, by its file name: an event that arrives twice, or a job that is done again after a crash,
 * finds its entry. An entry whose file is missing is kept but not shown (the folder may be on a drive that is not there
 * today); it shows again when the file does. Deleting removes the files first and the entry after them.
 *
 * Everything is asynchronous; callbacks run on the loop thread, their JSON is borrowed during the call. */
#ifndef MYSTI_SERVER_HISTORY_H
#define MYSTI_SERVER_HISTORY_H

#include "base/buf.h"
#include "server/db.h"
#include "server/image_params.h"

typedef struct history history;

/* A picture to record. Strings are borrowed during history_record(). */
typedef struct history_picture {
    int64_t job; /* 0: none */
    int index;   /* in its job */
    const char *file;
    const char *thumb; /* NULL: none */
    int width, height;
    int64_t seed, bytes;
    const char *model;
    const char *parameters; /* A1111 text */
    const image_params *params;
} history_picture;

/* `json`: the entry, the page or the list, as docs/api.md has it; NULL when `why` is set. */
typedef void (*history_done)(void *ctx, const err *why, const char *json, size_t len);
/* `fresh` is false when the file had an entry already. */
typedef void (*history_recorded)(void *ctx, const err *why, int64_t id, bool fresh, const char *json, size_t len);

history *history_open(db *d, const char *output_dir);
void history_close(history *h); /* after db_close() */

void history_record(history *h, const history_picture *p, history_recorded done, void *ctx);

/* Newest first, entries with id < before (0: from the newest), whose prompts or model contain every word of `q` (or
 * begin with it). limit is cut to 1..200. */
void history_list(history *h, int64_t before, int limit, const char *q, history_done done, void *ctx);
void history_get(history *h, int64_t id, history_done done, void *ctx);    /* ERR_NOT_FOUND */
void history_delete(history *h, int64_t id, history_done done, void *ctx); /* json: {"id": n} */

/* Looks at every entry's file, a few hundred at a time between other work, and marks what is missing or back again. */
void history_check_files(history *h);

/* The user's words as an FTS5 query in which nothing has a special meaning; false when no word is left. */
bool history_fts_query(const char *q, buf *out);

/* On the disk thread: a job's pictures in order, with their entries as JSON (all borrowed during the call). */
typedef void (*history_each)(void *ctx, int64_t id, const char *file, int64_t seed, const char *json);
bool history_of_job(db_conn *c, int64_t job, history_each fn, void *ctx, err *e);

#endif
