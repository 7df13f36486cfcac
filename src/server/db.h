/* db.h - the server's SQLite database, on a thread of its own.
 *
 * All SQL runs on one "disk thread", in the order in which it was submitted; the loop thread never waits for the disk.
 * Work that was submitted sees the effects of all work before it. Small blocking file work that belongs to a row
 * (unlinking a picture, storing an upload) runs there too, so that file and row change in one order.
 *
 * WAL with synchronous=FULL: when `done` runs, what `work` committed survives kill -9 and loss of power. The file is
 * locked for this process: a second server on the same data folder is told so. A file that is no database, or fails its
 * check, is moved aside to NAME.corrupt-DATE (loudly) and a fresh one begun. A newer schema is refused. */
#ifndef MYSTI_SERVER_DB_H
#define MYSTI_SERVER_DB_H

#include "base/err.h"

#include <sqlite3.h>
#include <stdint.h>
#include <uv.h>

typedef struct db db;
typedef struct db_conn db_conn; /* the connection and its prepared statements; only for the disk thread */

typedef void (*db_work)(db_conn *c, void *arg); /* on the disk thread */
typedef void (*db_done)(void *arg);             /* on the loop thread */

/* Opens or creates `path`, migrates it, starts the thread. Blocks: for the start of the program. */
db *db_open(uv_loop_t *loop, const char *path, err *e);

/* Runs what is still queued with its done callbacks, closes the file, and closes the handles on the loop, which must
 * turn once more. NULL is fine. */
void db_close(db *d);

/* From the loop thread. `done` may be NULL. `arg` belongs to the caller; it must live until done (or work) has run. */
void db_submit(db *d, db_work work, db_done done, void *arg);

/* Waits for the result on the calling thread: for the start of the program only. */
void db_run(db *d, db_work work, void *arg);

/* ---- for work functions ------------------------------------------------------------------------------------------
 *
 * `sql` must be a string literal: prepared statements are kept by its address. Values are always bound; `types` has a
 * letter for each: i = int64_t, d = double, s = const char * (NULL binds NULL). A full disk is ERR_IO, a damaged file
 * ERR_FORMAT, a violated constraint ERR_CONFLICT. */

/* One statement that returns no rows. */
bool db_exec(db_conn *c, err *e, const char *sql, const char *types, ...);

/* A query; step it with db_next() until that returns false, or stop early with db_end(). NULL on failure. */
sqlite3_stmt *db_query(db_conn *c, err *e, const char *sql, const char *types, ...);

/* True when there is a row. At the end (or on failure) the statement is reset; failure sets e->code, which must be 0
 * before. */
bool db_next(db_conn *c, sqlite3_stmt *s, err *e);
void db_end(sqlite3_stmt *s);

const char *db_text(sqlite3_stmt *s, int column); /* NULL for NULL; valid until the next step */
int64_t db_int(sqlite3_stmt *s, int column);

int64_t db_last_id(const db_conn *c);
int db_changes(const db_conn *c); /* rows changed by the last db_exec */

/* Transactions do not nest. A failed commit has been rolled back. */
bool db_begin(db_conn *c, err *e);
bool db_commit(db_conn *c, err *e);
void db_rollback(db_conn *c);

/* The raw handle, for tests. */
sqlite3 *db_handle(db_conn *c);

#endif
