/* file.h - whole files: read, replace in one step, map. */
#ifndef MYSTI_BASE_FILE_H
#define MYSTI_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

/* Appends the file's bytes to `out`; ERR_TOO_LARGE past the buffer's maximum. */
bool file_read(const char *path, buf *out, err *e);

/* Appends at most `most` bytes of a regular file (never waits on a pipe or device) from its byte `from` on; fewer where
 * it ends before. */
bool file_read_part(const char *path, uint64_t from, size_t most, buf *out, err *e);

/* Writes path.tmp-<pid>, flushes it to the disk, renames it over `path`: a reader (or a crash) sees the old file or the
 * new one, never a part. */
bool file_write_atomic(const char *path, const void *data, size_t len, err *e);

/* The same for what is too large to hold in memory: written piece by piece, whole or absent. file_out_commit() makes it
 * the file and file_out_discard() leaves no trace; either frees it. */
typedef struct file_out file_out;
file_out *file_out_open(const char *path, err *e); /* NULL on failure */
bool file_out_write(file_out *f, const void *data, size_t len, err *e);
bool file_out_commit(file_out *f, err *e);
void file_out_discard(file_out *f); /* NULL is fine */

/* Size and modification time. */
typedef struct file_info {
    int64_t size;
    int64_t mtime_ms;
    bool is_dir;
} file_info;
bool file_stat(const char *path, file_info *out, err *e);

/* A read-only mapping of a whole file. Pages are clean and file-backed: the system can drop and re-read them. */
typedef struct file_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;
    void *handle; /* os private */
} file_map;

bool file_map_open(file_map *m, const char *path, err *e);
void file_map_close(file_map *m);

/* Tells the system that this part is not needed for now: it leaves the process's resident memory (and stays in the
 * file cache while there is room). A later access reads it again. */
void file_map_release(const file_map *m, size_t offset, size_t len);

/* Copies a part that lies inside to `to`, where the system can without making its pages resident. */
void file_map_copy(const file_map *m, size_t offset, size_t len, void *to);

/* Calls fn for each entry of a folder (no "." and ".."), in no particular order; stops when fn returns false. */
bool file_list_dir(const char *path, bool (*fn)(void *ctx, const char *name), void *ctx, err *e);

/* Asks the system for room for `wish` open files and sockets in this process and those that it starts; returns how many
 * there may be (perhaps more, or fewer). */
int file_raise_limit(int wish);

/* Cryptographically strong random bytes from the system; aborts if there are none. */
void file_random(void *out, size_t len);

#endif
