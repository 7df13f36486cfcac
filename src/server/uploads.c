/* uploads.c - see uploads.h. */
#include "server/uploads.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "upload:"

enum { KEEP_MS = 60 * 60 * 1000 };

bool uploads_init(uploads *u, const char *data_dir, const char *output_dir, err *e) {
    *u = (uploads){.dir = path_join(data_dir, "uploads"), .output_dir = str_dup(output_dir)};
    return path_make_dirs(u->dir, e);
}

void uploads_free(uploads *u) {
    free(u->dir);
    free(u->output_dir);
    *u = (uploads){0};
}

const char *uploads_kind(const void *data, size_t len) {
    const char *d = data;
    if (len >= 8 && memcmp(d, "\x89PNG\r\n\x1a\n", 8) == 0) return "png";
    if (len >= 3 && memcmp(d, "\xff\xd8\xff", 3) == 0) return "jpg";
    if (len >= 12 && memcmp(d, "RIFF", 4) == 0 && memcmp(d + 8, "WEBP", 4) == 0) return "webp";
    return NULL;
}

static bool same_content(const char *path, const void *data, size_t len) {
    file_map m;
    if (!file_map_open(&m, path, NULL)) return false;
    bool same = m.size == len && memcmp(m.data, data, len) == 0;
    file_map_close(&m);
    return same;
}

/* Two hashes make an accident unlikely, but FNV is no defence against somebody who wants a collision: a file of that
 * name with other bytes is left alone and the next name is tried. An existing file is written again all the same,
 * which makes it young for uploads_collect(). */
char *uploads_store(const uploads *u, const void *data, size_t len, err *e) {
    const char *kind = uploads_kind(data, len);
    if (len > UPLOADS_BYTES_MAX) {
        err_set(e, ERR_TOO_LARGE, "%zu bytes are more than %d", len, UPLOADS_BYTES_MAX);
        return NULL;
    }
    if (!kind) {
        err_set(e, ERR_INVALID, "not a PNG, JPEG or WebP image");
        return NULL;
    }
    uint64_t high = str_hash(data, len, 1), low = str_hash(data, len, 2);
    for (;; low++) {
        char *name = str_fmt("%016" PRIx64 "%016" PRIx64 ".%s", high, low, kind);
        char *path = path_join(u->dir, name);
        bool taken = path_exists(path) && !same_content(path, data, len);
        bool ok = !taken && file_write_atomic(path, data, len, e);
        char *result = ok ? str_fmt(PREFIX "%s", name) : NULL;
        free(path);
        free(name);
        if (!taken) return result;
    }
}

/* "data:image/png;base64,...." -> behind the comma. */
static const char *skip_data_url(const char *text, err *e) {
    if (!str_starts(text, "data:")) return text;
    const char *comma = strchr(text, ',');
    size_t head = comma ? (size_t)(comma - text) : 0;
    if (head < 7 || head > 200 || memcmp(comma - 7, ";base64", 7) != 0) {
        err_set(e, ERR_INVALID, "a data URL must be of the form data:image/png;base64,...");
        return NULL;
    }
    return comma + 1;
}

static char *take_base64(const uploads *u, const char *text, err *e) {
    const char *encoded = skip_data_url(text, e);
    if (!encoded) return NULL;
    buf bytes;
    buf_init(&bytes, UPLOADS_BYTES_MAX);
    char *name = NULL;
    if (base64_decode(&bytes, encoded, strlen(encoded)))
        name = uploads_store(u, bytes.data, bytes.len, e);
    else if (bytes.full)
        err_set(e, ERR_TOO_LARGE, "more than %d bytes", UPLOADS_BYTES_MAX);
    else
        err_set(e, ERR_INVALID, "neither base64, nor a data URL, nor the name of a picture");
    buf_free(&bytes);
    return name;
}

static bool is_image_name(const char *s) {
    return strlen(s) < 200 &&
           (str_iends(s, ".png") || str_iends(s, ".jpg") || str_iends(s, ".jpeg") || str_iends(s, ".webp"));
}

char *uploads_take(const uploads *u, const char *text, err *e) {
    if (str_starts(text, "http://") || str_starts(text, "https://")) {
        err_set(e, ERR_INVALID,
                "pictures are not fetched from elsewhere: send base64, a data URL or the name of a picture here");
        return NULL;
    }
    if (!str_starts(text, PREFIX) && !is_image_name(text)) return take_base64(u, text, e);
    /* A page may send the URL under which it shows the picture. */
    if (str_starts(text, "/outputs/")) text += strlen("/outputs/");
    char *path = uploads_path(u, text, e);
    if (!path) return NULL;
    free(path);
    return str_dup(text);
}

char *uploads_path(const uploads *u, const char *name, err *e) {
    bool stored = str_starts(name, PREFIX);
    const char *file = stored ? name + strlen(PREFIX) : name;
    err why = {0};
    char *path = path_resolve_below(stored ? u->dir : u->output_dir, file, &why);
    if (!path) err_set(e, why.code == ERR_NOT_FOUND ? ERR_NOT_FOUND : ERR_INVALID, "%s", why.msg);
    return path;
}

/* ---- collecting ------------------------------------------------------------------------------------------------- */

typedef struct sweep {
    const uploads *u;
    db_conn *c;
    int64_t oldest_ms;
} sweep;

/* In doubt (the database cannot be read) the file stays. */
static bool is_needed(db_conn *c, const char *name) {
    err why = {0};
    char *ref = str_fmt(PREFIX "%s", name);
    sqlite3_stmt *s =
        db_query(c, &why, "SELECT 1 FROM jobs WHERE instr(params, ?) AND status IN ('queued','running','interrupted')",
                 "s", ref);
    bool found = s && db_next(c, s, &why);
    if (found) db_end(s);
    free(ref);
    return found || why.code;
}

static bool sweep_file(void *ctx, const char *name) {
    sweep *w = ctx;
    char *path = path_join(w->u->dir, name);
    file_info info;
    if (file_stat(path, &info, NULL) && !info.is_dir && info.mtime_ms < w->oldest_ms && !is_needed(w->c, name)) {
        log_debug("uploads", "removing '%s'", name);
        remove(path);
    }
    free(path);
    return true;
}

void uploads_collect(const uploads *u, db_conn *c) {
    sweep w = {.u = u, .c = c, .oldest_ms = clock_wall_ms() - KEEP_MS};
    err why = {0};
    if (!file_list_dir(u->dir, sweep_file, &w, &why)) log_warn("uploads", "%s", why.msg);
}
