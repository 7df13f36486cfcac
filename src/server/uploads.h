/* uploads.h - pictures and masks that came with a request, kept as files until no job needs them.
 *
 * Stored as <data>/uploads/<hash>.<png|jpg|webp>; the kind is told by the content's first bytes and nothing else is
 * accepted. The picture itself is decoded only in the image worker. All functions block: they run on the disk thread.
 */
#ifndef MYSTI_SERVER_UPLOADS_H
#define MYSTI_SERVER_UPLOADS_H

#include "server/db.h"

#include <stddef.h>

enum { UPLOADS_BYTES_MAX = 50 * 1024 * 1024 };

typedef struct uploads {
    char *dir;        /* owned */
    char *output_dir; /* owned: pictures of the history may be used as they are */
} uploads;

bool uploads_init(uploads *u, const char *data_dir, const char *output_dir, err *e);
void uploads_free(uploads *u);

/* "png", "jpg", "webp" by the first bytes, or NULL. */
const char *uploads_kind(const void *data, size_t len);

/* Stores the bytes (the same bytes twice are one file). The result, "upload:<file>", is freed by the caller. */
char *uploads_store(const uploads *u, const void *data, size_t len, err *e);

/* Takes what a request may say: base64, a data URL, "upload:<file>", or the name of a file in the output folder. Gives
 * the name to keep in image_params.init_image or edits.mask. The caller says in an error which field it was. */
char *uploads_take(const uploads *u, const char *text, err *e);

/* The absolute path behind such a name; ERR_NOT_FOUND when it is gone. */
char *uploads_path(const uploads *u, const char *name, err *e);

/* Removes files that no open job's parameters name and that are older than an hour. */
void uploads_collect(const uploads *u, db_conn *c);

#endif
