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

bool file_read_start(const char *path, size_t most, buf *out, err *e) {
    struct stat st;
    if (stat(path, &st) != 0) return err_sys(e, errno, "open '%.150s'", path);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_FORMAT, "'%.150s' is not a file", path);
    FILE *f = fopen(path, "rb");
    if (!f) return err_sys(e, errno, "open '%.150s'", path);
    bool ok = read_stream(f, path, most, out, e);
    fclose(f);
    return ok;
}

static bool write_and_sync(const char *path, const void *data, size_t len, err *e) {
    FILE *f = fopen(path, "wb");
    if (!f) return err_sys(e, errno, "create '%.150s'", path);
    errno = 0;
    bool ok = fwrite(data, 1, len, f) == len && fflush(f) == 0 && os_sync(f);
    int why = errno;
    if (fclose(f) != 0 && ok) {
        ok = false;
        why = errno;
    }
    return ok ? true : err_sys(e, why, "write '%.150s'", path);
}

bool file_write_atomic(const char *path, const void *data, size_t len, err *e) {
    char *tmp = str_fmt("%s.tmp-%d", path, os_pid());
    bool ok = write_and_sync(tmp, data, len, e);
    if (ok && os_replace(tmp, path) != 0) ok = err_sys(e, errno, "rename to '%.150s'", path);
    if (!ok) remove(tmp);
    free(tmp);
    return ok;
}

bool file_stat(const char *path, file_info *out, err *e) {
    struct stat st;
    if (stat(path, &st) != 0) return err_sys(e, errno, "'%.150s'", path);
    *out = (file_info){.size = st.st_size, .mtime_ms = (int64_t)st.st_mtime * 1000, .is_dir = S_ISDIR(st.st_mode)};
    return true;
}
