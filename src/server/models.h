/* models.h - the index over --model-dir: what each file is, by its content.
 *
 * Answers come from memory at once, whatever the workers do. The folder is walked on the disk thread in small pieces;
 * what is known of a file is kept in SQLite by (path, size, mtime), so that a restart opens only what changed. Broken
 * and unsupported files are listed with the reason. A folder with a model_index.json is one model. */
#ifndef MYSTI_SERVER_MODELS_H
#define MYSTI_SERVER_MODELS_H

#include "base/buf.h"
#include "server/db.h"

typedef struct models models;

typedef struct model_entry {
    char *id;           /* path below the folder, with '/' */
    char *path;         /* absolute */
    const char *type;   /* "image" "llm" "vae" ...: static */
    char *family;       /* "sd1", or NULL */
    char *quantization; /* "f16", "q4_k", or NULL */
    char *title;        /* what the file calls itself, or NULL */
    char *alias;        /* what a LoRA's trainer called it, or NULL */
    char *examples;     /* prompts that it can do, one a line, or NULL */
    int width, height;  /* of its pictures, where none are asked for; 0: not known, or not an image model */
    int64_t size, mtime_ms;
    bool supported;
    char *reason; /* why not, or NULL */
} model_entry;

typedef struct models_config {
    uv_loop_t *loop;
    db *db;
    const char *dir; /* absolute; copied; need not exist */
    void *ctx;
    void (*changed)(void *ctx);                                                 /* the list is another now */
    void (*state)(void *ctx, const model_entry *m, bool *active, bool *loaded); /* may be NULL */
} models_config;

/* Loads what the database knows (blocks: for the start of the program) and begins a scan. */
models *models_open(const models_config *config, err *e);
void models_close(models *m); /* before db_close(), which ends a scan under way; the loop must turn once more */

/* Lists a file outside of the folder too, with its path as id. Reads its head: for the start of the program. */
void models_add(models *m, const char *path);

size_t models_count(const models *m);
const model_entry *models_at(const models *m, size_t i); /* by id; those of models_add() last */

/* By id, by absolute path, by file name, or by file name without extension where that is unique. ERR_NOT_FOUND naming
 * the nearest, ERR_CONFLICT when several fit. Valid until the next change. */
const model_entry *models_find(const models *m, const char *name, err *e);

/* ERR_UNSUPPORTED unless the entry can be used and `fits`, is `what` ("an image model"): with the file's own reason, or
 * what it is instead. */
bool models_check(const model_entry *entry, bool fits, const char *what, err *e);

/* The same among those of one type. */
const model_entry *models_find_of(const models *m, const char *type, const char *name, err *e);

/* True when the first walk is through: before, a name that is not found may only not have been seen yet. */
bool models_scanned(const models *m);

/* Whether a file of this name is listed, were it in the folder. */
bool models_is_file_name(const char *name);

/* Walks the folder again; `done` (may be NULL) runs when it is through. Calls while one is under way share the next. */
typedef void (*models_done)(void *ctx);
void models_refresh(models *m, models_done done, void *ctx);

/* The OpenAI list / one entry. */
void models_write_list(const models *m, buf *out);
void models_write_one(const models *m, const model_entry *entry, buf *out);

#endif
