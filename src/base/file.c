/* file.c - see file.h. Mapping, folders and randomness are in os_*.c. */
#include "base/file.h"
#include "base/os.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* At most `most` bytes; a buffer that is full before that is an error. */
static bool read_stream(FILE *f, const char *path, size_t most, buf *out, err *e) {
    char chunk[16384];
    while (most) {
        size_t n = fread(chunk, 1, most < sizeof chunk ? most : sizeof chunk, f);
        if (n == 0) break;
        if (!buf_append(out, chunk, n))
            return err_set(e, ERR_TOO_LARGE, "'%.150s' is larger than %zu bytes", path, out->max);
        most -= n;
    }
    return ferror(f) ? err_sys(e, errno, "read '%.150s'", path) : true;
}

bool file_read(const char *path, buf *out, err *e) {
    FILE *f = fopen(path, "rb");
    if (!f) return err_sys(e, errno, "open '%.150s'", path);
    bool ok = read_stream(f, path, SIZE_MAX, out, e);
    fclose(f);
    return ok;
}

bool file_read_part(const char *path, uint64_t from, size_t most, buf *out, err *e) {
    struct stat st;
    if (stat(path, &st) != 0) return err_sys(e, errno, "open '%.150s'", path);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_FORMAT, "'%.150s' is not a file", path);
    FILE *f = fopen(path, "rb");
    if (!f) return err_sys(e, errno, "open '%.150s'", path);
    bool ok = os_seek(f, from) ? read_stream(f, path, most, out, e) : err_sys(e, errno, "read '%.150s'", path);
    fclose(f);
    return ok;
}

struct file_out {
    char *path, *tmp;
    FILE *f;
};

static void out_free(file_out *f) {
    free(f->path);
    free(f->tmp);
    free(f);
}

file_out *file_out_open(const char *path, err *e) {
    file_out *f = mem_alloc(1, sizeof *f);
    *f = (file_out){.path = str_dup(path), .tmp = str_fmt("%s.tmp-%d", path, os_pid())};
    f->f = fopen(f->tmp, "wb");
    if (f->f) return f;
    err_sys(e, errno, "create '%.150s'", f->tmp);
    out_free(f);
    return NULL;
}

bool file_out_write(file_out *f, const void *data, size_t len, err *e) {
    errno = 0;
    return fwrite(data, 1, len, f->f) == len || err_sys(e, errno, "write '%.150s'", f->tmp);
}

void file_out_discard(file_out *f) {
    if (!f) return;
    if (f->f) fclose(f->f);
    remove(f->tmp);
    out_free(f);
}

bool file_out_commit(file_out *f, err *e) {
    errno = 0;
    bool ok = fflush(f->f) == 0 && os_sync(f->f);
    int why = errno;
    if (fclose(f->f) != 0 && ok) {
        ok = false;
        why = errno;
    }
    f->f = NULL;
    if (!ok) err_sys(e, why, "write '%.150s'", f->tmp);
    if (ok && os_replace(f->tmp, f->path) != 0) ok = err_sys(e, errno, "rename to '%.150s'", f->path);
    if (ok)
        out_free(f);
    else
        file_out_discard(f);
    return ok;
}

bool file_write_atomic(const char *path, const void *data, size_t len, err *e) {
    file_out *f = file_out_open(path, e);
    if (!f) return false;
    if (file_out_write(f, data, len, e)) return file_out_commit(f, e);
    file_out_discard(f);
    return false;
}

bool file_stat(const char *path, file_info *out, err *e) {
    struct stat st;
    if (stat(path, &st) != 0) return err_sys(e, errno, "'%.150s'", path);
    *out = (file_info){.size = st.st_size, .mtime_ms = (int64_t)st.st_mtime * 1000, .is_dir = S_ISDIR(st.st_mode)};
    return true;
}
